"""Hierarchical Tucker: a balanced tree, the two modes of each half joined first.

Hackbusch and Kuehn, "A New Scheme for the Tensor Representation", J. Fourier Anal. Appl. 2009; Grasedyck, "Hierarchical
Singular Value Decomposition of Tensors", SIAM J. Matrix Anal. 2010.
"""

from torch import Tensor

from polyad.decompositions.base import FORMS, Decomposition
from polyad.layers import LayerSpec
from polyad.plain.hosvd import hooi, truncated_svd
from polyad.records import Rank
from polyad.refusals import one_axis, one_channel


class HierarchicalTucker(Decomposition):
    """`ia,hb,abx,xcd,wc,od->oihw`: (i, h) on one side, (w, o) on the other; the root's matrix is absorbed by a half."""

    name = "ht"
    equation = "ia,hb,abx,xcd,wc,od->oihw"
    summary = "hierarchical Tucker: the tree ((i, h), (w, o))"
    good_for = (
        "Tensors of many modes, where Tucker's core grows too large. With four short kernel modes it is a train with"
        " two more bases; offered for comparison, and for large kernels."
    )
    source = "Hackbusch and Kuehn, 2009; Grasedyck, 2010"

    def refuses(self, layer: LayerSpec) -> str | None:
        return one_axis(layer) or one_channel(layer)

    def max_rank(self, layer: LayerSpec) -> Rank:
        size = self.sizes(layer)
        o, i, h, w = size["o"], size["i"], size["h"], size["w"]
        return i, h, min(i * h, w * o), w, o

    def start(self, target: Tensor, rank: Rank) -> list[Tensor]:
        """Bases of the leaves, then one SVD of the core across the root."""
        a, b, x, c, d = rank
        core, bases = hooi(target, {1: d, 2: a, 3: b, 4: c}, sweeps=1)
        groups = len(core)
        across = core.permute(0, 2, 3, 4, 1).reshape(groups, a * b, c * d)
        u, s, vh = truncated_svd(across, x)
        left, right = u.reshape(groups, a, b, x), (s.unsqueeze(-1) * vh).reshape(groups, x, c, d)
        return [bases[2], bases[3], left, right, bases[4], bases[1]]


FORMS.register(HierarchicalTucker.name, HierarchicalTucker())
