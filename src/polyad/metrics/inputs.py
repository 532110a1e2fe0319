"""The error of the layer's output on calibration inputs, the default: E||D x||^2 = tr(D C D')."""

from polyad.metrics.base import METRICS, Metric
from polyad.metrics.moments import input_norm

METRICS.register(
    "inputs",
    Metric(
        name="inputs",
        summary="error of the layer's output on calibration inputs; needs no labels",
        needs_inputs=True,
        matrix=input_norm,
        source="Zhang et al., TPAMI 2016; shrinkage: Schaefer and Strimmer, 2005",
    ),
)
