"""Split an equation into the output factor and the rest.

Where the output letters stand in one factor A only, the weight is A (o, s) times a matrix B (s, n) made of the other
factors. For given others the best A is a small linear least-squares problem with a closed form; eliminating it leaves a
problem in the others alone (variable projection, Golub and Pereyra, SIAM J. Numer. Anal. 1973).

Where A shares an index with the weight (the kernel column w of the spatial SVD) B carries it twice, once as a row and
once as a column, tied by an identity. Where all groups share A, their problems are solved as one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad.decompositions.base import Decomposition
from polyad.execution.network import BATCH


@dataclass(frozen=True)
class Elimination:
    """How to eliminate the output factor of one form.

    Attributes:
        position: of the output factor among the factors.
        outputs: its output letters.
        letters: the others, the rows of B.
        inputs: the letters of the view that are not outputs, the columns of B.
        equation: einsum of the other factors, then the identities, to B (groups, *rows, *input modes).
        own: the same without the identities, to the entries of B at which tied letters meet (groups, *rows, *others).
        tied: the letters that an identity ties.
        alone: positions of the other factors that all groups share.
        one: whether all groups share the output factor.
    """

    position: int
    outputs: str
    letters: str
    inputs: str
    equation: str
    own: str
    tied: str
    alone: tuple[bool, ...]
    one: bool

    @classmethod
    def of(cls, form: Decomposition) -> "Elimination | None":
        """None where the output letters stand in several factors."""
        holders = [at for at, letters in enumerate(form.letters) if set(letters) & set(form.outputs)]
        if len(holders) != 1:
            return None
        (position,) = holders
        rows = "".join(letter for letter in form.letters[position] if letter not in form.outputs)
        modes = "".join(letter for letter in form.view if letter not in form.outputs)
        tied = "".join(letter for letter in rows if letter in modes)
        alone = tuple(one for at, one in enumerate(form.shared) if at != position)
        names = [letters for at, letters in enumerate(form.letters) if at != position]
        others = [letters if one else BATCH + letters for letters, one in zip(names, alone, strict=True)]
        twin = dict(zip(tied, "QRSTUV", strict=False))
        identities = [twin[letter] + letter for letter in tied]
        renamed = "".join(twin.get(letter, letter) for letter in rows)
        lead = "" if all(alone) else BATCH
        equation = f"{','.join(others + identities)}->{lead}{renamed}{modes}"
        ones = ",".join([*others, *tied])
        own = f"{ones}->{lead}{rows}{modes.translate(str.maketrans('', '', tied))}"
        return cls(position, form.outputs, rows, modes, equation, own, tied, alone, form.shared[position])

    def rows(self, others: Sequence[Tensor], sizes: Mapping[str, int]) -> Tensor:
        """B (groups or 1, s, n) from the other factors."""
        like = others[0]
        eyes = [torch.eye(sizes[letter], dtype=like.dtype, device=like.device) for letter in self.tied]
        tensors = [factor[0] if one else factor for factor, one in zip(others, self.alone, strict=True)]
        found = torch.einsum(self.equation, *tensors, *eyes)
        found = found.unsqueeze(0) if all(self.alone) else found
        return found.flatten(1, len(self.letters)).flatten(2)

    def own_rows(self, others: Sequence[Tensor], sizes: Mapping[str, int]) -> Tensor:
        """The entries (groups, s, m) of B that a tie does not make zero, where groups share no factor."""
        ones = [others[0].new_ones(sizes[letter]) for letter in self.tied]
        return torch.einsum(self.own, *others, *ones).flatten(1, len(self.letters)).flatten(2)

    def factor(self, form: Decomposition, solution: Tensor, shape: Sequence[int]) -> Tensor:
        """The output factor in its own layout from A (groups or 1, o, s); `shape` is that of the factor."""
        layout = form.letters[self.position]
        size = dict(zip(layout, shape[1:], strict=True))
        order = self.outputs + self.letters
        split = solution.reshape(solution.shape[0], *(size[letter] for letter in order))
        return split.permute(0, *(1 + order.index(letter) for letter in layout))
