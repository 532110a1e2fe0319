"""Split an equation into the output factor and the rest.

In every form the output index o stands in one factor A only, so the weight is A (o, s) times a matrix B (s, n) made of
the other factors. For given others the best A is a small linear least-squares problem with a closed form; eliminating
it leaves a problem in the others alone (variable projection, Golub and Pereyra, SIAM J. Numer. Anal. 1973).

Where A shares an index with the weight (the kernel column w of the spatial SVD) B carries it twice, once as a row and
once as a column, tied by an identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad.decompositions.base import BATCH, Decomposition


@dataclass(frozen=True)
class Elimination:
    """How to eliminate the output factor of one form.

    Attributes:
        position: of the output factor among the factors.
        letters: of the output factor without `o`: the rows of B.
        equation: einsum of the other factors, then the identities, to B (groups, *rows, *input modes).
        shared: the letters that an identity ties.
    """

    position: int
    letters: str
    equation: str
    shared: str

    @classmethod
    def of(cls, form: Decomposition) -> "Elimination":
        position = next(at for at, letters in enumerate(form.inputs) if "o" in letters)
        rows = form.inputs[position].replace("o", "")
        modes = form.view.replace("o", "")
        shared = "".join(letter for letter in rows if letter in modes)
        others = [BATCH + letters for at, letters in enumerate(form.inputs) if at != position]
        identities = [letter.upper() + letter for letter in shared]
        renamed = "".join(letter.upper() if letter in shared else letter for letter in rows)
        return cls(position, rows, f"{','.join(others + identities)}->{BATCH}{renamed}{modes}", shared)

    def rows(self, others: Sequence[Tensor], sizes: dict[str, int]) -> Tensor:
        """B (groups, s, n) from the other factors."""
        like = others[0]
        eyes = [torch.eye(sizes[letter], dtype=like.dtype, device=like.device) for letter in self.shared]
        return torch.einsum(self.equation, *others, *eyes).flatten(1, len(self.letters)).flatten(2)

    def factor(self, form: Decomposition, solution: Tensor, shape: Sequence[int]) -> Tensor:
        """The output factor in its own layout from A (groups, o, s); `shape` is that of the factor."""
        layout = form.inputs[self.position]
        size = dict(zip(layout, shape[1:], strict=True))
        order = "o" + self.letters
        split = solution.reshape(solution.shape[0], *(size[letter] for letter in order))
        return torch.einsum(f"{BATCH}{order}->{BATCH}{layout}", split)
