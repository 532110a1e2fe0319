"""In which norm an error counts: one file each, registered beside the code.

The damage of an error D = W - W^ of one group is tr(G D C D'), with C (n, n) over the layer's unfolded input patch (n =
input channels x kernel positions) and G (out, out) over its outputs:

    weights            C = I                                          data-free
    inputs             C = E[x x'], shrunk as far as it is uncertain   inputs
    inputs_diagonal    its diagonal                                   inputs
    inputs_modes       a Kronecker product of channels and kernel     inputs
    inputs_full        E[x x'] as it is                               inputs
    curvature          C of inputs, G = E[g g'] of the gradients      inputs and one backward pass

G is the identity in all but the last.
"""

from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import held_out_norm

__all__ = ["METRICS", "Metric", "held_out_norm"]
