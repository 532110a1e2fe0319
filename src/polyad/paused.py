"""Work that stops on its way until it is told to go on, in a thread of its own."""

from collections.abc import Callable
from threading import Semaphore, Thread
from typing import Any

import torch


class _CancelledError(BaseException):
    """Unwinds work that nobody waits for any more."""


class Paused:
    """Work, without gradients, that stops at every `pause` until `advance` lets it go on; it and the thread that waits
    for it are never awake together.

    Args:
        work: a function that calls `pause`.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work, self._go, self._here = work, Semaphore(0), Semaphore(0)
        self._found: Any = None
        self._error: BaseException | None = None
        self._cancelled = False
        self._threads = torch.get_num_threads()
        self._thread = Thread(target=self._body, daemon=True)
        self._thread.start()

    @property
    def ident(self) -> int | None:
        """Of its thread."""
        return self._thread.ident

    def advance(self) -> Any:
        """Until the next stop: what it stopped with; None at the end."""
        self._go.release()
        self._here.acquire()
        if self._error is not None:
            raise self._error
        return self._found

    def pause(self, found: Any) -> None:
        """Called by the work itself: hand something over and wait."""
        self._found = found
        self._here.release()
        self._go.acquire()
        if self._cancelled:
            raise _CancelledError

    def close(self) -> None:
        """End the work where it is."""
        self._cancelled = True
        self._go.release()
        self._thread.join()

    def _body(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                torch.set_num_threads(self._threads)  # each thread has its own
                with torch.no_grad():
                    self._work()
        except _CancelledError:
            pass
        except BaseException as error:  # it is raised where the work is waited for
            self._error = error
        self._found = None
        self._here.release()
