"""Two networks that run over the same batches side by side and stop at the same layers.

Each run has a thread of its own, of which one at a time is awake. Where a network arrives at one of the layers it hands
over what it has there and waits; what happens meanwhile, such as new weights for that layer, the rest of its run
already sees. So a network is changed layer by layer, each on what those before it now give, in a single pass; what is
held is the activations at one layer.
"""

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad.batches import Batch, run_on
from polyad.errors import ModelError
from polyad.modes import evaluating


@dataclass(frozen=True)
class Meeting:
    """Both networks at one layer, batch by batch.

    Attributes:
        name: of the layer.
        seen: what the layer is about to see in the student.
        wanted: what it gave in the teacher.
    """

    name: str
    seen: Sequence[Tensor]
    wanted: Sequence[Tensor]


class _CancelledError(BaseException):
    """Unwinds a run that nobody waits for any more."""


class _Run:
    """Work in a thread of its own that stops at every `pause` until `advance` lets it go on."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._go, self._here = work, threading.Semaphore(0), threading.Semaphore(0)
        self._found: Any = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._body, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def advance(self) -> Any:
        """Until the next stop: what it stopped with; None at the end."""
        self._go.release()
        self._here.acquire()
        if self._error is not None:
            raise self._error
        return self._found

    def pause(self, found: Any) -> None:
        """Called by the work itself."""
        self._found = found
        self._here.release()
        self._go.acquire()
        if self._cancelled:
            raise _CancelledError

    def close(self) -> None:
        """Ends the work where it is."""
        self._cancelled = True
        self._go.release()
        self._thread.join()

    def _body(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                torch.set_num_threads(self._threads)
                with torch.no_grad():
                    self._work()
        except _CancelledError:
            pass
        except BaseException as error:  # it is raised where the run is waited for
            self._error = error
        self._found = None
        self._here.release()


def walk(
    teacher: nn.Module, student: nn.Module, names: Sequence[str], batches: Sequence[Batch]
) -> Generator[Meeting, None, None]:
    """The meetings of two networks at some layers, in the order in which they run.

    Args:
        teacher: only read.
        student: its layers may be given other tensors between two meetings, those at hand and later ones.
        names: of layers that run once.
        batches: all of them are under way at the same time.

    Raises:
        ModelError: the two do not come to the layers in the same order.
        DataError: a network refuses a batch.
    """
    runs: dict[int | None, _Run] = {}

    def stop(name: str, found: Tensor) -> None:
        here = runs.get(threading.get_ident())
        if here is not None:  # else somebody else runs the network meanwhile
            here.pause((name, found))

    def start(model: nn.Module, batch: Batch) -> _Run:
        run = _Run(lambda: run_on(model, batch, "a calibration batch"))
        runs[run.ident] = run
        return run

    handles = _hooks(teacher, student, names, stop)
    try:
        with evaluating(teacher), evaluating(student):
            pairs = [(start(teacher, batch), start(student, batch)) for batch in batches]
            while (meeting := _next(pairs)) is not None:
                yield meeting
    finally:
        for run in runs.values():
            run.close()
        for handle in handles:
            handle.remove()


def _next(pairs: Sequence[tuple[_Run, _Run]]) -> Meeting | None:
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
    return Meeting(name, [found for _, found in seen], [found for _, found in wanted])


def _hooks(teacher: nn.Module, student: nn.Module, names: Sequence[str], stop: Callable[[str, Tensor], None]) -> list:
    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
            stop(name, args[0] if args else kwargs["input"])

        return hook

    def behind(name: str) -> Callable[..., None]:
        return lambda module, args, output: stop(name, output)

    handles: list = [
        student.get_submodule(name).register_forward_pre_hook(before(name), with_kwargs=True) for name in names
    ]
    return handles + [teacher.get_submodule(name).register_forward_hook(behind(name)) for name in names]
