"""Before the stages: modules that read bare weights become equal ones whose weights lie in linear layers.

`trace` finds linear and convolution layers. nn.MultiheadAttention, nn.LSTM and the like hold their weights themselves;
here a copy of the network gets equal modules in their places, made of linear layers. An expansion stands only where
the network gives the same outputs on the example as before.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from polyad.batches import Batch
from polyad.errors import PlanError
from polyad.expansions.base import EXPANSIONS, Expansion
from polyad.layers import conv1d_class
from polyad.naming import inside, matches, with_module
from polyad.records import Plan, Refusal, Trace
from polyad.sameness import Reference
from polyad.splits import Call
from polyad.steps import Step

Split = Mapping[str, int | tuple[int, ...]]
"""Pattern of layer names -> how many equal parts, or the size of each."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Expanded:
    """A network in which `trace` finds more.

    Attributes:
        model: an equal network; the very object that was given where nothing was expanded.
        names: name -> what was done to the module, in the order in which to do it again.
        refused: modules that stay as they are although there is an expansion for their kind, and why.
    """

    model: nn.Module
    names: Mapping[str, Step]
    refused: tuple[Refusal, ...] = ()

    def complete(self, trace: Trace) -> Trace:
        """A trace of `model` with the refused modules in it."""
        return trace.model_copy(update={"refused": (*self.refused, *trace.refused)})


def expand(model: nn.Module, example: Batch | Call, split: Split | None = None) -> Expanded:
    """Expand what can be expanded.

    Args:
        model: any network; it is not changed.
        example: a batch that the network accepts, or a function that runs it.
        split: linear layers to be split, by patterns of their names (those inside expanded modules too).

    Raises:
        PlanError: a split that matches no linear layer or cannot be done.
        DataError: the network refuses the example.
    """
    wanted = {name: Step(kind=kind.name, scope=_scope(model, name, kind)) for name, kind in _found(model)}
    if not wanted and not split:
        return Expanded(model, {})
    draft = _Draft(model, Reference.of(model, example))
    reasons = draft.expand_all(wanted)
    for name, module in _splits(draft.model, split or {}).items():
        if reason := draft.place(name, module) or draft.check(name):
            raise PlanError(f"--split names {name}, which stays whole: {reason}.")
    refused = tuple(_refusal(model, name, reason) for name, reason in reasons.items())
    return Expanded(draft.model if draft.done else model, draft.done, refused)


def expand_as(model: nn.Module, example: Batch | Call, plan: Plan) -> Expanded:
    """Expand what a plan says, and nothing else.

    Raises:
        PlanError: the network is not the one that the plan was made for.
    """
    known = {name for name, _ in _found(model)}
    refused = tuple(refusal for refusal in plan.refused if refusal.name in known - plan.expanded.keys())
    if not plan.expanded:
        return Expanded(model, {}, refused)
    copy = redo(deepcopy(model), plan.expanded)
    if reason := Reference.of(model, example).differs(copy):
        raise PlanError(f"The plan's expansions do not fit this network: {reason}.")
    return Expanded(copy, plan.expanded, refused)


def redo(model: nn.Module, names: Mapping[str, Step]) -> nn.Module:
    """Expand modules in place, as a plan says; on any device, the meta device too.

    Returns:
        The model, or what takes its place where it is expanded itself.

    Raises:
        PlanError: a module is not there or is no module of that kind.
    """
    for name, step in names.items():
        try:
            module, kind = model.get_submodule(name), EXPANSIONS[step.kind]
        except AttributeError:
            raise PlanError(f"The plan expands {name}, which {type(model).__name__} does not have.") from None
        if not kind.takes(module):
            raise PlanError(f"The plan expands {name} ({kind.name}), which is a {type(module).__name__} here.")
        if reason := kind.refuses(module, step.parts):
            raise PlanError(f"The plan expands {name} ({kind.name}), but {reason}.")
        model = with_module(model, name, kind.expand(module, step.parts))
    return model


def in_use(plan: Plan) -> dict[str, Step]:
    """The expansions in whose scope the plan replaces a layer; all other modules stay what they were."""
    replaced = [name for c in plan.choices if not c.dense for name in (*c.site.modules, *c.site.aliases)]
    return {
        name: step
        for name, step in plan.expanded.items()
        if any(inside(layer, name if step.scope is None else step.scope) for layer in replaced)
    }


def parse_split(texts: Sequence[str]) -> dict[str, int | tuple[int, ...]]:
    """`blocks.*.qkv=3` or `blocks.*.qkv=64,32,32` -> pattern to parts.

    Raises:
        PlanError: a text that is neither.
    """
    found: dict[str, int | tuple[int, ...]] = {}
    for text in texts:
        pattern, _, parts = text.rpartition("=")
        sizes = parts.split(",")
        if not pattern or not all(size.strip().isdecimal() for size in sizes):
            raise PlanError(
                f"--split {text!r} is not understood: write LAYER=PARTS, such as blocks.*.qkv=3, or LAYER=SIZES, such"
                " as qkv=64,32,32."
            )
        numbers = tuple(map(int, sizes))
        found[pattern] = numbers[0] if len(numbers) == 1 else numbers
    return found


class _Draft:
    """A copy of a network in which modules are exchanged, and put back where they do not do the same."""

    def __init__(self, model: nn.Module, reference: Reference) -> None:
        self.model = deepcopy(model)
        self.reference = reference
        self.done: dict[str, Step] = {}
        self._undo: dict[str, Callable[[], None]] = {}

    def expand_all(self, wanted: Mapping[str, Step]) -> dict[str, str]:
        """Expand modules, those around others first; returns why some could not be.

        All at once; only if the outputs then differ one after the other, to see which it is.
        """
        reasons = self._tried(wanted, self.place)
        if self.done and self.reference.differs(self.model):
            for name in reversed(list(self.done)):
                self.take_back(name)
            reasons = self._tried(wanted, lambda name, step: self.place(name, step) or self.check(name))
        return reasons

    def place(self, name: str, step: Step) -> str | None:
        """Expand one module; returns why not."""
        module, kind = self.model.get_submodule(name), EXPANSIONS[step.kind]
        if reason := _why_not(self.model, name, module, step):
            return reason
        replacement = kind.expand(module, step.parts)
        if reason := _what_is_lost(self.model, module, replacement):
            return reason

        def undo() -> None:
            self.model = with_module(self.model, name, module)

        self.model = with_module(self.model, name, replacement)
        self.done[name], self._undo[name] = step, undo
        return None

    def check(self, name: str) -> str | None:
        """Take an expansion back where the network is no longer the same; returns why."""
        if reason := self.reference.differs(self.model):
            self.take_back(name)
        return reason

    def take_back(self, name: str) -> None:
        self._undo.pop(name)()
        del self.done[name]

    @staticmethod
    def _tried(wanted: Mapping[str, Step], attempt: Callable[[str, Step], str | None]) -> dict[str, str]:
        found = {name: attempt(name, step) for name, step in wanted.items()}
        return {name: reason for name, reason in found.items() if reason is not None}


def _found(model: nn.Module) -> list[tuple[str, Expansion]]:
    """The modules for which there is an expansion, each under its first name, those around others first."""
    kinds = [kind for name in EXPANSIONS if not (kind := EXPANSIONS[name]).on_request]
    return [(name, kind) for name, module in model.named_modules() for kind in kinds if kind.takes(module)]


def _scope(model: nn.Module, name: str, kind: Expansion) -> str | None:
    parent = name.rpartition(".")[0]
    return parent if name and kind.read_by(model.get_submodule(parent)) else None


def _splits(model: nn.Module, split: Split) -> dict[str, Step]:
    """The layers that the patterns name; a later pattern has the last word."""
    kind, found = EXPANSIONS["split"], {}
    layers = {name: module for name, module in model.named_modules() if kind.takes(module)}
    for pattern, parts in split.items():
        named = [name for name in layers if matches(pattern, name, "--split")]
        if not named:
            raise PlanError(f"--split {pattern!r} matches no linear layer; there are {', '.join(list(layers)[:5])}.")
        found |= {name: Step(kind=kind.name, parts=_sizes(name, layers[name], parts)) for name in named}
    return found


def _sizes(name: str, layer: nn.Module, parts: int | tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(parts, int):
        return parts
    out: int = layer.nf if conv1d_class(layer) else layer.out_features  # type: ignore[assignment]
    if parts < 2 or out % parts:
        raise PlanError(f"--split {name}={parts}: its {out} outputs do not make {parts} equal parts (two or more).")
    return (out // parts,) * parts


def _why_not(model: nn.Module, name: str, module: nn.Module, step: Step) -> str | None:
    """What speaks against expanding a module, before it is tried."""
    kind = EXPANSIONS[step.kind]
    base = conv1d_class(module) or next(base for base in kind.types if isinstance(module, base))
    if type(module).forward is not base.forward or "forward" in vars(module):
        return f"its forward is not that of {base.__name__}"
    if is_parametrized(module):
        return "its weight is computed from other tensors (a parametrization): remove it first"
    for around, _ in _found(model):
        if around != name and inside(name, around):
            return f"{around or 'the network'} around it reads it and could not be expanded itself"
    return kind.refuses(module, step.parts)


def _what_is_lost(model: nn.Module, module: nn.Module, replacement: nn.Module) -> str | None:
    """What else uses the modules and weights that an expansion would make disappear, or None."""
    stays = set(replacement.modules())
    names: dict[nn.Module, list[str]] = {}
    for name, one in model.named_modules(remove_duplicate=False):
        names.setdefault(one, []).append(name)
    holders: dict[int, list[str]] = {}
    for one, (name, *_) in names.items():
        for own, parameter in one.named_parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(f"{name}.{own}".lstrip("."))
    for gone in (one for one in module.modules() if one not in stays):
        if len(found := names[gone]) > 1:
            return f"it is shared: {' and '.join(found)} are one module"
        if any(getattr(gone, hooks) for hooks in HOOKS):
            return "it carries hooks, which an expansion would drop"
        if is_parametrized(gone):
            return "one of its weights is computed from other tensors (a parametrization): remove it first"
        for parameter in gone.parameters(recurse=False):
            if len(found := holders[id(parameter)]) > 1:
                return f"its weight is tied: {' and '.join(sorted(found))} are one tensor"
    return None


def _refusal(model: nn.Module, name: str, reason: str) -> Refusal:
    module = model.get_submodule(name)
    params = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    return Refusal(name=name, label=type(module).__name__, params=params, macs=0, reason=reason)
