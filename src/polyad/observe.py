"""Stage 2: first and second moments of what every site sees, streamed over the calibration data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.batches import Batch, run_on
from polyad.errors import DataError, NumericalError
from polyad.modes import evaluating
from polyad.patches import patch_blocks
from polyad.progress import Progress, silent
from polyad.records import Site, Statistics
from polyad.splits import Call


@dataclass
class _Moments:
    """Running sums of one site, float64."""

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def zero(cls, site: Site) -> "_Moments":
        groups, _, *rest = site.layer.weight_shape
        n = int(torch.Size(rest).numel())
        return cls(0, torch.zeros(groups, n, dtype=torch.float64), torch.zeros(groups, n, n, dtype=torch.float64))

    def add(self, site: Site, x: Tensor) -> None:
        """Products are taken in the precision of the input, at least float32, and summed in float64 block by block."""
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        for block in patch_blocks(site.layer, x):
            self.count += block.shape[-1]
            self.total += block.sum(-1).to("cpu", torch.float64)
            self.products += (block @ block.mT).to("cpu", torch.float64)

    def means(self) -> tuple[Tensor, Tensor]:
        count = max(self.count, 1)
        return self.total / count, self.products / count


def observe(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Batch | Call],
    held_out: Sequence[Batch] = (),
    *,
    progress: Progress = silent,
) -> dict[str, Statistics]:
    """Second moments of the inputs of every site.

    Args:
        model: the original network; it is not changed.
        sites: from `trace`.
        batches: calibration batches.
        held_out: batches for the error on inputs that no fit has seen.

    Raises:
        DataError: a site saw no input.
        NumericalError: inputs of a site are not finite; the layer is named.
    """
    fitted = _collect(model, sites, batches, progress)
    unseen = _collect(model, sites, held_out, progress) if held_out else {}
    return {site.name: _statistics(site, fitted[site.name], unseen.get(site.name)) for site in sites}


def _collect(
    model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch | Call], progress: Progress
) -> Mapping[str, _Moments]:
    moments = {site.name: _Moments.zero(site) for site in sites}

    def hook_for(site: Site) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            moments[site.name].add(site, args[0] if args else kwargs["input"])

        return hook

    handles = [
        model.get_submodule(site.name).register_forward_pre_hook(hook_for(site), with_kwargs=True) for site in sites
    ]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in progress(batches, "observe"):
                run_on(model, batch, "a calibration batch")
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _statistics(site: Site, fitted: _Moments, unseen: _Moments | None) -> Statistics:
    if fitted.count == 0:
        raise DataError(f"No calibration batch reached {site.name}; give data that runs the whole network.")
    mean, moment = fitted.means()
    if not torch.isfinite(moment).all():
        raise NumericalError(f"The inputs of {site.name} hold NaN or infinity on the calibration data.")
    if unseen is None or unseen.count == 0:
        return Statistics(fitted.count, mean, moment)
    held_out_mean, held_out = unseen.means()
    return Statistics(fitted.count, mean, moment, held_out, held_out_mean)
