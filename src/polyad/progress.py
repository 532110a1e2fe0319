"""Progress of long work: stages wrap what they iterate over; who shows it is decided by the caller.

A label is a text, or anything whose text may change from item to item.
"""

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Wraps an iterable and shows how far its consumer has come; `total` where it has no length."""

    def __call__(self, items: Iterable[T], label: object, total: int | None = None) -> Iterable[T]: ...


def silent(items: Iterable[T], label: object, total: int | None = None) -> Iterable[T]:
    """No progress shown."""
    return items
