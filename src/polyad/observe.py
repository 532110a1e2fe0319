"""Stage 2: moments of what every site sees and, on request, of the gradients at its outputs; streamed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from polyad.batches import Batch, run_on
from polyad.errors import DataError, NumericalError
from polyad.gradients import output_moments
from polyad.layers import LayerSpec
from polyad.metrics.moments import noise_between, second_moment
from polyad.modes import evaluating
from polyad.patches import patch_blocks
from polyad.progress import Progress, silent
from polyad.records import Site, Statistics
from polyad.splits import Call


@dataclass
class _Sums:
    """Running sums over rows, float64."""

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def zero(cls, layer: LayerSpec) -> "_Sums":
        groups, _, *rest = layer.weight_shape
        n = int(torch.Size(rest).numel())
        square = (groups, n) if layer.kind == "embedding" else (groups, n, n)
        return cls(0, torch.zeros(groups, n, dtype=torch.float64), torch.zeros(square, dtype=torch.float64))

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

    def joined(self, other: "_Sums") -> "_Sums":
        return _Sums(self.count + other.count, self.total + other.total, self.products + other.products)


class _Moments:
    """Running sums of one site over the samples in turn: two halves that tell how far the moments can be trusted.

    Args:
        halves: 2; or 1 where nobody asks for that, and for one-hot rows, whose moment is diagonal.
    """

    def __init__(self, layer: LayerSpec, halves: int) -> None:
        self.layer, self.calls = layer, 0
        self.parts = [_Sums.zero(layer) for _ in range(1 if layer.kind == "embedding" else halves)]

    def add(self, x: Tensor, samples: range | None) -> None:
        """The input of one call.

        Args:
            samples: the numbers of the samples that it belongs to, each with as many entries of the first axis of `x`
                (windows, positions) one after another; None where they are not known.
        """
        x = x.unsqueeze(0) if x.dim() == self.layer.dims + 1 else x  # one sample without its axis
        first, each = (self.calls, 1) if samples is None else (samples.start, max(1, len(x) // max(len(samples), 1)))
        self.calls += 1
        numbers = torch.arange(len(x), device=x.device) // each + first
        for at, part in enumerate(self.parts):
            own = x[numbers % len(self.parts) == at] if len(self.parts) > 1 else x
            if len(own):
                part.add(self.layer, own)

    def statistics(self, site: Site, name: str) -> Statistics:
        """Mean, moment, and the noise in it.

        Raises:
            DataError: nothing came.
            NumericalError: something was not finite.
        """
        whole = self.parts[0] if len(self.parts) == 1 else self.parts[0].joined(self.parts[1])
        if whole.count == 0:
            raise DataError(f"No calibration batch reached {name}; give data that runs the whole network.")
        mean, moment = whole.means()
        if not torch.isfinite(moment).all():
            raise NumericalError(f"The inputs of {name} hold NaN or infinity on the calibration data.")
        return Statistics(whole.count, mean, moment, noise=self._noise(site, whole.count))

    def _noise(self, site: Site, count: int) -> Tensor | None:
        if not all(part.count for part in self.parts) or len(self.parts) == 1:
            return None
        means, moments = zip(*(part.means() for part in self.parts), strict=True)
        first, second = (second_moment(site, moment, mean, mean) for mean, moment in zip(means, moments, strict=True))
        return noise_between(first, second, self.parts[0].count / count)


def observe(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Batch | Call],
    held_out: Sequence[Batch] = (),
    *,
    curvature: bool = False,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Statistics]:
    """Second moments of the inputs of every site.

    Args:
        model: the original network; it is not changed.
        sites: from `trace`.
        batches: calibration batches.
        held_out: batches for the error on inputs that no fit has seen.
        curvature: whether the moments of the gradients at the outputs are wanted too: one backward pass more.
        seed: of the labels drawn for those.

    Raises:
        DataError: a site saw no input; or gradients are wanted of a function that runs the model.
        NumericalError: inputs or gradients of a site are not finite; the layer is named.
    """
    gradients = output_moments(model, sites, batches, seed=seed, progress=progress) if curvature else {}
    fitted = _collect(model, sites, batches, progress, halves=2)
    unseen = _collect(model, sites, held_out, progress, halves=1) if held_out else {}

    def of(site: Site, name: str) -> Statistics:
        found = fitted.pop(name).statistics(site, name)  # its halves are not needed any more
        found = replace(found, curvature=gradients.get(name))
        if name not in unseen or not unseen[name].parts[0].count:
            return found
        mean, moment = unseen.pop(name).parts[0].means()
        return replace(found, held_out=moment, held_out_mean=mean)

    return {site.name: _joined([of(site, name) for name in site.modules]) for site in sites}


def room(site: Site, *, held_out: bool) -> int:
    """Bytes that the sums of a site take while they are observed: two halves, and those of held-out inputs."""
    with torch.device("meta"):
        parts = _Moments(site.layer.member, halves=2).parts
    each = parts[0].total.nbytes + parts[0].products.nbytes
    return len(site.modules) * each * (len(parts) + (1 if held_out else 0))


def _collect(
    model: nn.Module, sites: Sequence[Site], batches: Sequence[Batch | Call], progress: Progress, halves: int
) -> dict[str, _Moments]:
    layers = {name: site.layer.member for site in sites for name in site.modules}
    moments = {name: _Moments(layer, halves) for name, layer in layers.items()}
    samples: range | None = range(0)  # numbers of those of the batch

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            moments[name].add(args[0] if args else kwargs["input"], samples)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(hook_for(name), with_kwargs=True) for name in layers]
    try:
        with torch.no_grad(), evaluating(model):
            for batch in progress(batches, "observe"):
                samples = None if isinstance(batch, Call) or samples is None else _following(samples, batch.size)
                run_on(model, batch, "a calibration batch")
    finally:
        for handle in handles:
            handle.remove()
    return moments


def _following(samples: range, size: int) -> range:
    return range(samples.stop, samples.stop + size)


def _joined(found: Sequence[Statistics]) -> Statistics:
    """The statistics of the layers of a stack, their groups one after another; None where one of them lacks one."""
    if len(found) == 1:
        return found[0]

    def all_of(name: str) -> Tensor | None:
        parts = [getattr(one, name) for one in found]
        return None if any(part is None for part in parts) else torch.cat(parts)

    return Statistics(
        count=sum(one.count for one in found),
        mean=torch.cat([one.mean for one in found]),
        moment=torch.cat([one.moment for one in found]),
        held_out=all_of("held_out"),
        held_out_mean=all_of("held_out_mean"),
        noise=all_of("noise"),
        curvature=all_of("curvature"),
    )
