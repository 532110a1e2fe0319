"""Two networks that run over the same batches side by side and stop at the same layers.

Each run has a thread of its own, of which one at a time is awake. Where a network arrives at one of the layers it hands
over what it has there and waits; what happens meanwhile, such as new weights for that layer, the rest of its run
already sees. So a network is changed layer by layer, each on what those before it now give, in a single pass; what is
held is the activations at one layer.

At a layer whose output is added to a shortcut they wait in front of the sum, where both of its sides are known; the
student then computes the layer, and its batch norm, once more.
"""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyad.batches import Batch, run_on
from polyad.errors import ModelError
from polyad.followers import summands
from polyad.modes import evaluating
from polyad.paused import Paused
from polyad.records import Site


@dataclass(frozen=True)
class Meeting:
    """Both networks at one layer, batch by batch.

    Attributes:
        name: of the layer.
        seen: what the layer sees in the student.
        wanted: what it gives in the teacher.
        beside: what is going to be added behind the layer, or its batch norm, in the student and in the teacher; None
            where they do not wait for that.
    """

    name: str
    seen: Sequence[Tensor]
    wanted: Sequence[Tensor]
    beside: Sequence[tuple[Tensor, Tensor]] | None = None


@dataclass
class _Runner:
    """One run of one network.

    Attributes:
        paused: its thread.
        kept: site -> what it sees (student) or gives (teacher), from there to the sum, and the tensor's version.
        waiting: id of an output that is going to be added -> site, output.
        busy: whether the run itself computes a layer once more.
    """

    paused: Paused
    kept: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    waiting: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    busy: bool = False


class _BeforeSums(TorchFunctionMode):
    """Calls `meet` with a site's output and the shortcut, before they are added."""

    def __init__(self, waiting: dict[int, tuple[str, Tensor]], meet: Callable[[str, Tensor, Tensor], None]) -> None:
        super().__init__()
        self.waiting, self.meet = waiting, meet

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        pair = summands(func, args, kwargs) if self.waiting else ()
        for one, other in zip(pair, pair[::-1], strict=True):
            if id(one) in self.waiting:
                name, _ = self.waiting.pop(id(one))
                self.meet(name, one, other)
        return func(*args, **(kwargs or {}))


def walk(
    teacher: nn.Module,
    student: nn.Module,
    sites: Sequence[Site],
    batches: Sequence[Batch],
    summed: Collection[str] = (),
) -> Generator[Meeting, None, None]:
    """The meetings of two networks at some layers, in the order in which they run.

    Args:
        teacher: only read.
        student: its layers may be given other tensors between two meetings, those at hand and later ones.
        sites: layers that run once.
        batches: all of them are under way at the same time.
        summed: names of the sites at which they wait in front of the sum behind them.

    Raises:
        ModelError: the two do not come to the layers in the same order, or a layer's input is changed in place before
            the sum behind it.
        DataError: a network refuses a batch.
    """
    sides = [_Side(model, sites, summed, original) for model, original in ((teacher, True), (student, False))]
    try:
        with evaluating(teacher), evaluating(student):
            pairs = [tuple(side.start(batch) for side in sides) for batch in batches]
            while (meeting := _next(pairs)) is not None:
                yield meeting
    finally:
        for side in sides:
            side.close()


def _next(pairs: Sequence[tuple[Paused, ...]]) -> Meeting | None:
    """Every run at its next layer; None at the end of all."""
    wanted = [teacher.advance() for teacher, _ in pairs]
    seen = [student.advance() for _, student in pairs]
    names = {found and found[0] for found in (*wanted, *seen)}
    if len(names) != 1:
        listed = ", ".join(sorted(name or "the end" for name in names))
        raise ModelError(f"The networks come to their layers in different orders: next were {listed}.")
    (name,) = names
    if name is None:
        return None
    shortcuts = [(mine[2], theirs[2]) for mine, theirs in zip(seen, wanted, strict=True)]
    beside = None if shortcuts[0][0] is None else shortcuts
    return Meeting(name, [found[1] for found in seen], [found[1] for found in wanted], beside)


class _Side:
    """All runs of one of the two networks."""

    def __init__(self, model: nn.Module, sites: Sequence[Site], summed: Collection[str], original: bool) -> None:
        self.model, self.original = model, original
        self.sites, self.summed = {site.name: site for site in sites}, summed
        self.runners: dict[int | None, _Runner] = {}
        self.handles: list = []
        for site in sites:
            at = model.get_submodule(site.name)
            if original:
                self.handles.append(at.register_forward_hook(self._behind(site.name)))
            else:
                self.handles.append(at.register_forward_pre_hook(self._before(site.name), with_kwargs=True))
            if site.name in summed:
                end = model.get_submodule(site.norm_behind or site.name)
                self.handles.append(end.register_forward_hook(self._at_end(site.name)))

    def start(self, batch: Batch) -> Paused:
        def run() -> None:
            runner = self.runners[get_ident()]
            with _BeforeSums(runner.waiting, lambda *found: self._meet(runner, *found)):
                run_on(self.model, batch, "a calibration batch")

        paused = Paused(run)
        self.runners[paused.ident] = _Runner(paused)
        return paused

    def close(self) -> None:
        for runner in self.runners.values():
            runner.paused.close()
        for handle in self.handles:
            handle.remove()

    def _arrived(self, name: str, found: Tensor) -> None:
        runner = self.runners.get(get_ident())
        if runner is None or runner.busy:  # somebody else runs the network meanwhile
            return
        if name in self.summed:
            runner.kept[name] = found, found._version
        else:
            runner.paused.pause((name, found, None))

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
            self._arrived(name, args[0] if args else kwargs["input"])

        return hook

    def _behind(self, name: str) -> Callable[..., None]:
        return lambda module, args, output: self._arrived(name, output)

    def _at_end(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            runner = self.runners.get(get_ident())
            if runner is not None and not runner.busy:
                runner.waiting[id(output)] = (name, output)

        return hook

    def _meet(self, runner: _Runner, name: str, output: Tensor, other: Tensor) -> None:
        found, version = runner.kept.pop(name)
        if found._version != version:
            raise ModelError(f"What {name} sees or gives is changed in place before its output is added to something.")
        runner.paused.pause((name, found, other))
        if self.original:
            return
        site, runner.busy = self.sites[name], True
        again = self.model.get_submodule(site.name)(found)
        output.copy_(again if site.norm_behind is None else self.model.get_submodule(site.norm_behind)(again))
        runner.busy = False
