"""Networks cut to a share, with what a recovery may learn from and what it is tested on, once.

CIFAR: learned from all lossless training images but 1,000, which judge; MobileNetV2 learns from, and is judged on, the
half of the ImageNet sample that it was calibrated on; VDSR learns from 800 patches of photographs and is judged on 160.
Calibration and tests are those of tested.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from accuracy import LOSSLESS, WEIGHTS
from common import data_folder
from tested import CALIBRATION, DEVICE, Test, Tested
from torch import nn
from torch.utils.data import Subset

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_alone, loader
from polyad.lessons import lesson
from polyad.looking import HELD_OUT
from polyad.progress import silent
from polyad.records import Plan
from polyad.recovery.base import Lesson
from polyad.settings import Training
from polyad.splits import hold_out, merge
from polyad.work import Work

JUDGES = 1000
"""Images of CIFAR that judge a training."""

PATCHES, JUDGING_PATCHES = 800, 160

HALF = 500
"""Images of the ImageNet sample."""


@dataclass(frozen=True)
class Case:
    """One network with its data.

    Attributes:
        unit, share: of the budget.
        learned, judges: to learn from, and to judge by; what it was calibrated on by default.
        blocks, whole: how it is trained block by block, and end to end.
    """

    opened: Tested
    unit: str
    share: float
    learned: Sequence[Batch] = ()
    judges: Sequence[Batch] = ()
    blocks: Training = field(default_factory=Training)
    whole: Training = field(default_factory=Training)

    @property
    def model(self) -> nn.Module:
        return self.opened.model

    @property
    def tests(self) -> Mapping[str, Test]:
        return self.opened.tests


@dataclass(frozen=True)
class Start:
    """A compressed network with its plan, and what the refit made of it in how many seconds (itself, in none)."""

    student: nn.Module
    plan: Plan
    refitted: tuple[nn.Module, float]

    def lesson(self, case: Case, work: Work) -> Lesson:
        """All that a recovery works with."""
        parts = hold_out(list(case.opened.calibration), HELD_OUT)
        found = lesson(self.student, case.model, self.plan, parts, work=work, progress=silent)
        return replace(found, learned=case.learned, unseen=case.judges)


def cifar(name: str, unit: str, share: float, seed: int) -> Case:
    opened = Tested.open(name, seed)
    source = polyad.open_model(f"zoo:{name}", data_folder() / WEIGHTS[name])
    images = polyad.open_data(f"npz:{data_folder() / LOSSLESS[0]}", source.preprocessing)
    drawn: Subset = calibration_alone(images, CALIBRATION[name], seed)  # type: ignore[assignment]
    taken = set(drawn.indices)
    rest = [at for at in range(len(drawn.dataset)) if at not in taken]  # type: ignore[arg-type]

    def part(indices: Sequence[int]) -> list[Batch]:
        return as_batches(loader(Subset(drawn.dataset, indices), 250))

    return Case(opened, unit, share, [*opened.calibration, *part(rest[:-JUDGES])], part(rest[-JUDGES:]))


def vdsr(share: float, seed: int) -> Case:
    opened = Tested.open("vdsr", seed)
    patches = PATCHES + JUDGING_PATCHES
    more = merge(Tested.open("vdsr", seed + 1, samples=patches).calibration, patches)
    blocks, whole = Training(epochs=30, batch=8), Training(batch=8)
    return Case(opened, "kernels", share, [more.part(0, PATCHES)], [more.part(PATCHES, more.size)], blocks, whole)


def mobilenet_v2(share: float, seed: int) -> Case:
    blocks = Training(batch=32, augment="none" if DEVICE == "cpu" else "auto")  # or one pass takes most of the time
    return Case(
        Tested.open("mobilenet_v2", seed, samples=HALF), "params", share, blocks=blocks, whole=Training(batch=32)
    )


CASES: dict[str, Callable[[int], Case]] = {
    "resnet20-25": partial(cifar, "resnet20", "kernels", 0.25),
    "resnet20-15": partial(cifar, "resnet20", "kernels", 0.15),
    "resnet56-25": partial(cifar, "resnet56", "kernels", 0.25),
    "resnet56-macs30": partial(cifar, "resnet56", "macs", 0.3),
    "resnet56-10": partial(cifar, "resnet56", "kernels", 0.1),
    "mobilenet_v2-60": partial(mobilenet_v2, 0.6),
    "vdsr-15": partial(vdsr, 0.15),
}
"""Name -> seed of the calibration draw -> case."""
