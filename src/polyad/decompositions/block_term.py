"""Block term decomposition: a sum of small Tucker-2 terms, which runs as one grouped convolution between two 1x1.

De Lathauwer, "Decompositions of a Higher-Order Tensor in Block Terms", SIAM J. Matrix Anal. 2008; for convolutions Chen
et al., "Sharing Residual Units Through Collective Tensor Factorization", IJCAI 2018.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.errors import UnknownNameError
from polyad.layers import LayerSpec
from polyad.plain.hosvd import basis, hooi, multiply
from polyad.records import Rank
from polyad.refusals import one_channel, without_kernel

TERMS = (2, 4, 8, 16)


class BlockTerm(Decomposition):
    """`gop,gpqk,gqi->oik`.

    Args:
        terms: size of `g`, which belongs to the form and is no rank.
    """

    name = "block_term"
    equation = "gop,gpqk,gqi->oik"
    summary = "block term: 1x1, grouped k x k with 2 groups, 1x1; block_term/4 ... for more groups"
    good_for = (
        "Between Tucker-2 (one group) and CP (as many groups as channels): nearly CP's parameters with a grouped"
        " convolution that runs well where depthwise ones do not."
    )
    source = "De Lathauwer, 2008; Chen et al., IJCAI 2018"
    own = {"g": "terms"}
    default = True

    def __init__(self, terms: int = 2) -> None:
        self.terms = terms
        if terms != 2:
            self.name = f"block_term/{terms}"

    def variants(self, layer: LayerSpec) -> Sequence[Decomposition]:
        own = FAMILY.values() if self.terms == 2 else (self,)
        return tuple(form for form in own if not form.refuses(layer))

    def variant(self, text: str) -> Decomposition:
        if text not in FAMILY:
            raise UnknownNameError(f"There is no block_term/{text}; the number of terms is {', '.join(FAMILY)}.")
        return FAMILY[text]

    def refuses(self, layer: LayerSpec) -> str | None:
        size = self.sizes(layer)
        if reason := without_kernel(layer) or one_channel(layer):
            return reason
        if min(size["o"], size["i"]) < self.terms:
            return f"it has fewer channels than the {self.terms} terms"
        return None

    def structure(self, layer: LayerSpec) -> dict[str, int]:
        return {"g": self.terms}

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        return -(-size["o"] // self.terms), size["i"]

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """One Tucker-2 after another, each fitted to what the ones before it leave over, in the space of the leading
        directions: no more of them than all terms together can use (compression to a core: Carroll, Pruzansky and
        Kruskal, Psychometrika 1980)."""
        out, inp = (basis(target, axis, min(target.shape[axis], self.terms * rank[axis - 1])) for axis in (1, 2))
        left = multiply(multiply(target, out, 1), inp, 2)
        outs, cores, inps = [], [], []
        for _ in range(self.terms):
            core, bases = hooi(left, {1: rank[0], 2: rank[1]}, sweeps=1)
            left = left - torch.einsum("Gop,Gpqk,Giq->Goik", bases[1], core, bases[2])
            outs.append(out @ bases[1])
            cores.append(core)
            inps.append((inp @ bases[2]).mT)
        return [torch.stack(parts, 1) for parts in (outs, cores, inps)]


FAMILY = {str(terms): BlockTerm(terms) for terms in TERMS}
FORMS.register(BlockTerm.name, FAMILY["2"])
