"""The progress of a training, in per cent: how many steps there will be is not always known before."""

from collections.abc import Iterator
from types import TracebackType

from polyad.progress import Progress

COUNT = 100


class Label:
    """A text that changes while it is shown."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Ticks:
    """Advances a progress as a training does; beside its name stands the last validation figure."""

    def __init__(self, progress: Progress, name: str) -> None:
        self.name, self.label, self.at = name, Label(name), 0
        self.items: Iterator[int] = iter(progress(range(COUNT), self.label, COUNT))

    def show(self, done: float, figure: float) -> None:
        """What lies behind, as a share, and the figure."""
        self.label.text = f"{self.name} {figure:.4g}"
        self.advance(done)

    def advance(self, done: float) -> None:
        """What lies behind, as a share."""
        while self.at < int(done * COUNT) + 1:
            next(self.items, None)
            self.at += 1

    def __enter__(self) -> "Ticks":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        close = getattr(self.items, "close", None)
        if close is not None:
            close()
