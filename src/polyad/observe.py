"""Stage 2: first and second moments of what every site sees, streamed over the calibration data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polyad.batches import Batch, run_on
from polyad.errors import DataError, NumericalError
from polyad.layers import LayerSpec
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
    def zero(cls, layer: LayerSpec) -> "_Moments":
        groups, _, *rest = layer.weight_shape
        n = int(torch.Size(rest).numel())
        if layer.kind == "embedding":
            return cls(0, torch.zeros(groups, n, dtype=torch.float64), torch.zeros(groups, n, dtype=torch.float64))
        return cls(0, torch.zeros(groups, n, dtype=torch.float64), torch.zeros(groups, n, n, dtype=torch.float64))

    def add(self, layer: LayerSpec, x: Tensor) -> None:
        """Products are taken in the precision of the input, at least float32, and summed in float64 block by block.

        Of one-hot rows only the diagonal is not zero: how often each index came.
        """
        if layer.kind == "embedding":
            seen = torch.bincount(x.flatten().cpu(), minlength=layer.in_features).double()
            self.count += x.numel()
            self.total += seen
            self.products += seen
            return
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        for block in patch_blocks(layer, x):
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
    return {
        site.name: _joined([_statistics(name, fitted.pop(name), unseen.pop(name, None)) for name in site.modules])
        for site in sites
    }


def room(site: Site, *, held_out: bool) -> int:
    """Bytes that the sums of a site take while they are observed."""
    with torch.device("meta"):
        sums = _Moments.zero(site.layer.member)
    return len(site.modules) * (sums.total.nbytes + sums.products.nbytes) * (2 if held_out else 1)


def _collect(
    model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch | Call], progress: Progress
) -> dict[str, _Moments]:
    layers = {name: site.layer.member for site in sites for name in site.modules}
    moments = {name: _Moments.zero(layer) for name, layer in layers.items()}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            moments[name].add(layers[name], args[0] if args else kwargs["input"])

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_for(name), with_kwargs=True) for name in layers]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in progress(batches, "observe"):
                run_on(model, batch, "a calibration batch")
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _joined(found: Sequence[Statistics]) -> Statistics:
    """The statistics of the layers of a stack, their groups one after another."""
    if len(found) == 1:
        return found[0]
    unseen = all(one.held_out is not None for one in found)
    return Statistics(
        count=sum(one.count for one in found),
        mean=torch.cat([one.mean for one in found]),
        moment=torch.cat([one.moment for one in found]),
        held_out=torch.cat([one.held_out for one in found]) if unseen else None,  # type: ignore[misc]
        held_out_mean=torch.cat([one.held_out_mean for one in found]) if unseen else None,  # type: ignore[misc]
    )


def _statistics(name: str, fitted: _Moments, unseen: _Moments | None) -> Statistics:
    if fitted.count == 0:
        raise DataError(f"No calibration batch reached {name}; give data that runs the whole network.")
    mean, moment = fitted.means()
    if not torch.isfinite(moment).all():
        raise NumericalError(f"The inputs of {name} hold NaN or infinity on the calibration data.")
    if unseen is None or unseen.count == 0:
        return Statistics(fitted.count, mean, moment)
    held_out_mean, held_out = unseen.means()
    return Statistics(fitted.count, mean, moment, held_out, held_out_mean)
