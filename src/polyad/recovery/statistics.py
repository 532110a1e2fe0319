"""Match the original network's mean and variance per channel at every site, where that brings the outputs closer.

The student runs once over the calibration images, all in one batch. When it arrives at a site, the mean and variance
of its output channels are brought to those of the teacher at the same site on the same images; every later site
already sees the correction. It goes into the batch norm behind the site, or else into the site's bias and the rows of
its last layer, and is kept only where the held-out divergence from the teacher falls by more than its standard error.

What is matched is the teacher's statistics on these images, not unit variance: re-estimating batch norm from scratch
on a few hundred images would also undo what the network learned from its whole training set. Bias correction: Nagel
et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.channels import matching_scale
from polyad.evaluation import divergences, outputs
from polyad.layers import LayerSpec, is_layer
from polyad.modes import evaluating
from polyad.records import Site
from polyad.recovery.base import RECOVERIES, Lesson, Recovery, rose, samples_at_once
from polyad.splits import merge


def statistics(lesson: Lesson) -> tuple[str, ...]:
    """Correct the student site by site in one pass; returns what was kept."""
    sites = [
        choice.site
        for choice in lesson.plan.choices
        if choice.site.bias_may_move and choice.site.calls == 1 and not choice.site.members
    ]
    if not sites:
        return ("statistics: no site has a bias or a batch norm behind it, so nothing could be corrected",)
    batch = merge(lesson.calibration, samples_at_once(sites))
    expected = _channels(lesson.teacher, sites, batch)
    check = _Check(lesson)
    before, kept = check.divergence, 0
    steps = iter(lesson.progress(range(len(sites)), "statistics", len(sites)))

    def correct(site: Site, output: Tensor) -> Tensor | None:
        nonlocal kept
        if check.running:  # the held-out run that decides passes the same hooks
            return None
        next(steps, None)
        scales = site.norm_behind is not None or _last(lesson.student, site) is not None
        correction = _Correction.between(_Channels.of(site, output), expected[site.name], scales)
        undo = _apply(lesson.student, site, correction)
        if check.improved():
            kept += 1
            return None if site.norm_behind else correction(site, output)
        undo()
        return None

    _visit(lesson.student, sites, batch, correct)
    next(steps, None)
    fall = f"{before:.4g} -> {check.divergence:.4g}"
    return (f"statistics: {kept} of {len(sites)} sites corrected, held-out divergence {fall}",)


class _Check:
    """Held-out divergence from the teacher: has it fallen, beyond what chance would do?"""

    def __init__(self, lesson: Lesson) -> None:
        self.student, self.held_out = lesson.student, lesson.held_out
        self.targets = outputs(lesson.teacher, lesson.held_out)
        self.running = False
        self.found = self._measure()

    @property
    def divergence(self) -> float:
        return float(self.found.mean())

    def improved(self) -> bool:
        """Measure again; the new figures stand if they are better by more than chance would do."""
        now = self._measure()
        better = rose(now, self.found)
        self.found = now if better else self.found
        return better

    def _measure(self) -> Tensor:
        self.running = True
        try:
            return divergences(self.targets, outputs(self.student, self.held_out))
        finally:
            self.running = False


@dataclass(frozen=True)
class _Channels:
    """Mean and variance (out,) of a site's output, float64."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, site: Site, output: Tensor) -> "_Channels":
        rows = output.detach().movedim(_axis(site), -1).flatten(0, -2).double()
        variance, mean = torch.var_mean(rows, 0, correction=0)
        return cls(mean, variance)


@dataclass(frozen=True)
class _Correction:
    """y -> scale y + shift, per channel."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def between(cls, have: _Channels, want: _Channels, scales: bool) -> "_Correction":
        """What brings one to the other; the mean alone where the rows of the last factor are not channels."""
        if not scales:
            return cls(torch.ones_like(have.mean), want.mean - have.mean)
        scale = matching_scale(have.variance, want.variance)
        return cls(scale, want.mean - scale * have.mean)

    def __call__(self, site: Site, output: Tensor) -> Tensor:
        moved = output.movedim(_axis(site), -1)
        return (moved * self.scale.to(output) + self.shift.to(output)).movedim(-1, _axis(site))


def _axis(site: Site) -> int:
    """The channel axis of an output, from the end."""
    return -1 - site.layer.dims


@torch.no_grad()
def _apply(student: nn.Module, site: Site, correction: _Correction) -> Callable[[], None]:
    """Fold a correction into the student; returns what takes it back."""
    if site.norm_behind is not None:
        changes = _into_norm(student.get_submodule(site.norm_behind), correction)
    elif (layer := _last(student, site)) is not None:
        changes = _into_layer(layer, correction)
    else:
        bias = student.get_submodule(site.name)[-1].bias  # type: ignore[index]
        changes = [(bias, bias.double() + correction.shift.to(bias.device))]
    before = [(tensor, tensor.clone()) for tensor, _ in changes]
    for tensor, value in changes:
        tensor.copy_(value)

    def undo() -> None:
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)

    return undo


def _last(student: nn.Module, site: Site) -> nn.Module | None:
    """The layer whose rows and bias are the site's output channels; None for forms that end otherwise."""
    module = student.get_submodule(site.name)
    last = module[-1] if isinstance(module, nn.Sequential) else module
    return last if is_layer(last) else None


def _into_norm(norm: nn.Module, correction: _Correction) -> list[tuple[Tensor, Tensor]]:
    """(s y + t - mean) / sd is (y - (mean - t) / s) / (sd / s)."""
    mean, variance, eps = norm.running_mean, norm.running_var, norm.eps
    scale, shift = correction.scale.to(mean.device), correction.shift.to(mean.device)  # type: ignore[union-attr, arg-type]
    new_variance = (variance.double() + eps) / scale.square() - eps  # type: ignore[operator, union-attr]
    return [(mean, (mean.double() - shift) / scale), (variance, new_variance.clamp_min(0))]  # type: ignore[operator, union-attr, list-item]


def _into_layer(layer: nn.Module, correction: _Correction) -> list[tuple[Tensor, Tensor]]:
    """s (W x + b) + t, in the rows of the last weight and the bias."""
    spec, weight, bias = LayerSpec.of(layer), layer.weight, layer.bias
    scale, shift = correction.scale.to(weight.device), correction.shift.to(weight.device)  # type: ignore[union-attr, arg-type]
    rows = spec.canonical(weight.double())  # type: ignore[operator, union-attr]
    scaled = rows * scale.view(*rows.shape[:2], *(1,) * (rows.dim() - 2))
    return [(weight, spec.native(scaled)), (bias, scale * bias.double() + shift)]  # type: ignore[operator, union-attr, list-item]


def _visit(
    model: nn.Module, sites: Sequence[Site], batch: Batch, visit: Callable[[Site, Tensor], Tensor | None]
) -> None:
    """Run the model once and call `visit` with each site's output; what it returns takes the output's place."""

    def hook_for(site: Site) -> Callable[..., Tensor | None]:
        return lambda module, args, output: visit(site, output)

    handles = [model.get_submodule(site.name).register_forward_hook(hook_for(site)) for site in sites]
    try:
        with torch.no_grad(), evaluating(model):
            batch.run(model)
    finally:
        for handle in handles:
            handle.remove()


def _channels(teacher: nn.Module, sites: Sequence[Site], batch: Batch) -> dict[str, _Channels]:
    found: dict[str, _Channels] = {}

    def note(site: Site, output: Tensor) -> None:
        found[site.name] = _Channels.of(site, output)

    _visit(teacher, sites, batch, note)
    return found


RECOVERIES.register(
    "statistics",
    Recovery("statistics", "mean and variance per channel brought back to the original's; no labels", statistics),
)
