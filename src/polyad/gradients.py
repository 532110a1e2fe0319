"""Second moments of the gradients at the outputs of layers, labels drawn from the network's own prediction.

With such labels they are the true Fisher information of the outputs, not the empirical one (Kunstner, Balles and
Hennig, NeurIPS 2019), and no label is needed. Per sample, with g_t the gradient at position t,

    G = E[ sum over t of g_t g_t' ]    (groups, out, out).

Two classes or more, (samples, classes) or (samples, positions, vocabulary), are drawn from the softmax; other outputs
from a Gaussian of unit variance around them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from polyad.batches import Batch, is_integer, run_on
from polyad.errors import DataError, ModelError, NumericalError
from polyad.layers import LayerSpec
from polyad.modes import evaluating, layer_by_layer
from polyad.outputs import outputs_tensor
from polyad.perplexity import predicts_tokens
from polyad.progress import Progress, silent
from polyad.records import Site

SAMPLES = 32
"""Samples of one backward pass: what it keeps grows with them."""


def output_moments(
    model: nn.Module, sites: Sequence[Site], batches: Sequence[Any], *, seed: int = 0, progress: Progress = silent
) -> dict[str, Tensor]:
    """G (groups, out, out) float64 of every layer of every site, by name.

    Args:
        model: the network; parameters, their gradients and all modes are as before behind it.
        sites: from `trace`.
        batches: of inputs.
        seed: of the labels drawn.

    Raises:
        DataError: something that is no batch of inputs.
        ModelError: the network cannot run backwards.
        NumericalError: gradients at a layer are not finite; the layer is named.
    """
    if not all(isinstance(batch, Batch) for batch in batches):
        raise DataError(
            "The curvature norm needs batches of inputs; of a function that runs the model it has no outputs."
        )
    layers = {name: site.layer.member for site in sites for name in site.modules}
    sums = {name: _zero(layer) for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model), layer_by_layer(), _frozen(model), torch.enable_grad(), _listening(model, layers, sums):
        for batch in progress(batches, "gradients"):
            for start in range(0, batch.size, SAMPLES):
                part = batch.part(start, start + SAMPLES)
                output = outputs_tensor(run_on(model, part, "a calibration batch"))
                _backward(drawn_loss(output, _is_tokens(model, part, output), generator))
    for name, found in sums.items():
        if not found.isfinite().all():
            raise NumericalError(f"The gradients at the outputs of {name} hold NaN or infinity.")
    samples = sum(batch.size for batch in batches)
    return {name: found / max(samples, 1) for name, found in sums.items()}


def drawn_loss(output: Tensor, tokens: bool, generator: torch.Generator) -> Tensor:
    """The negative log-likelihood of labels drawn from the prediction itself, summed over samples and positions.

    Args:
        output: (samples, classes), with `tokens` (samples, positions, vocabulary), or anything else.
        tokens: whether the last of three axes are scores of tokens.
        generator: of the draws.
    """
    if tokens or (output.dim() == 2 and output.shape[1] >= 2):
        scores = output.flatten(0, -2).float()
        labels = torch.multinomial(scores.detach().softmax(-1).cpu(), 1, generator=generator).squeeze(-1)
        return F.cross_entropy(scores, labels.to(scores.device), reduction="sum")
    noise = torch.randn(output.shape, generator=generator)
    return (output * noise.to(output)).sum()  # the gradient of |output - drawn|^2 / 2


def _is_tokens(model: nn.Module, batch: Batch, output: Tensor) -> bool:
    """Whether each position of an output (samples, positions, n) scores tokens: as the labels say, or where tokens of
    that shape go in and n is how many some embedding knows."""
    if predicts_tokens(output, batch):
        return True
    if output.dim() != 3 or not output.is_floating_point():
        return False
    goes_in = any(is_integer(leaf) and leaf.shape == output.shape[:2] for leaf in tree_iter((batch.args, batch.kwargs)))
    known = {module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)}
    return goes_in and output.shape[2] in known


def _zero(layer: LayerSpec) -> Tensor:
    groups, out, *_ = layer.weight_shape
    return torch.zeros(groups, out, out, dtype=torch.float64)


def _rows(layer: LayerSpec, gradient: Tensor) -> Tensor:
    """Gradient at an output, as the layer gives it, to (groups, out, rows)."""
    if layer.matrix:
        return gradient.reshape(-1, gradient.shape[-1]).t().unsqueeze(0)
    if gradient.dim() == layer.dims + 1:
        gradient = gradient.unsqueeze(0)
    return gradient.flatten(2).transpose(0, 1).reshape(layer.groups, layer.out_features // layer.groups, -1)


@contextmanager
def _listening(model: nn.Module, layers: Mapping[str, LayerSpec], sums: Mapping[str, Tensor]):
    """Inside, what flows back through the output of a layer is added to its sum, call by call."""

    def hook_for(name: str) -> Callable[..., Tensor]:
        def add(gradient: Tensor) -> None:
            rows = _rows(layers[name], gradient).to(torch.promote_types(gradient.dtype, torch.float32))
            sums[name].add_((rows @ rows.mT).to("cpu", torch.float64))

        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            if not output.requires_grad:  # nothing in front of it does; a leaf could not be changed in place behind it
                output = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
            if output.requires_grad:  # not where the network turns gradients off
                output.register_hook(add)
            return output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(hook_for(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(model: nn.Module):
    """No parameter asks for a gradient inside, so that none is computed or left behind."""
    asked = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in asked:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asked:
            parameter.requires_grad_(True)


def _backward(loss: Tensor) -> None:
    if not loss.requires_grad:
        raise ModelError(
            "No gradient reaches the layers: the network turns gradients off, or its outputs are detached."
        )
    try:
        loss.backward()
    except RuntimeError as error:  # in-place changes of what the way back needs
        cause = str(error).strip().splitlines()[0].rstrip(".")
        raise ModelError(f"The network cannot run backwards, which the curvature norm needs: {cause}.") from error
