"""Data by its specification: one file per source, registered beside the code."""

from polyad.data.base import SOURCES, DataSource
from polyad.data.opening import (
    calibration_alone,
    calibration_and_evaluation,
    loader,
    open_data,
    training_samples,
    validation_samples,
)

__all__ = [
    "SOURCES",
    "DataSource",
    "calibration_alone",
    "calibration_and_evaluation",
    "loader",
    "open_data",
    "training_samples",
    "validation_samples",
]
