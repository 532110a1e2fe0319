"""What a recovery level is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from polyad.batches import Batch
from polyad.progress import Progress
from polyad.records import Plan, Site
from polyad.registry import Registry

ELEMENTS = 1 << 27
"""Largest activation of all calibration inputs together, in elements (512 MiB of float32)."""


@dataclass(frozen=True)
class Lesson:
    """What a recovery works with.

    Attributes:
        student: the compressed network; recovery changes its tensors in place, never its layers or their number.
        teacher: the original network, only read.
        plan: what was replaced.
        calibration: batches to learn from; labels are not looked at.
        held_out: batches that decide whether a change is kept.
        progress: shows how far it is.
    """

    student: nn.Module
    teacher: nn.Module
    plan: Plan
    calibration: Sequence[Batch]
    held_out: Sequence[Batch]
    progress: Progress


@dataclass(frozen=True)
class Recovery:
    """One level; `run` changes the student and returns notes for the report."""

    name: str
    summary: str
    run: Callable[[Lesson], tuple[str, ...]]


def samples_at_once(sites: Sequence[Site]) -> int:
    """As many samples as the largest output of a site allows."""
    sizes = (site.layer.out_features * prod(site.layer.output_size(run.size)) for site in sites for run in site.runs)
    return max(1, ELEMENTS // max(sizes))


RECOVERIES: Registry[Recovery] = Registry("recovery level", "polyad.recovery")
RECOVERIES.register("none", Recovery("none", "the network as it was rebuilt", lambda lesson: ()))
