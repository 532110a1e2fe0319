"""Fits on one thread each, side by side over sites.

The fits of one site are small: with several threads inside a product they spend their time waiting for each other
(measured on two cores: up to 30 times slower), so each worker computes alone and the sites share the cores.
Rounding depends on the number of threads too, and a descent carries it on: on two threads a CP came out 1 % apart.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """PyTorch on so many threads inside; results that have to be the same bits anywhere are computed on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Results in the order of the items; the first error ends it."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits(1), ThreadPoolExecutor(before, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(before)  # a worker's call may have changed what all threads share
