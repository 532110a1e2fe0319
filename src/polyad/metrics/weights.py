"""The plain norm of the weight error."""

from polyad.metrics.base import METRICS, Metric

METRICS.register("weights", Metric("weights", "plain norm of the weight error; needs no data", False, None))
