"""The same bits whatever the number of threads: each piece of work on one of them, several pieces side by side.

A product of matrices that several threads share, or a decomposition, adds up in an order that depends on how many they
are; the last bits differ, and a text that is drawn from probabilities may go another way. Work that nobody shares does
not, and on small products it is the faster way too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

import torch
from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Made = TypeVar("Made")
MOST: Final = 8  # pieces of work at once, for each holds memory of its own
CPU: Final = torch.device("cpu")
_before: list[int] = []  # threads that torch had outside the outermost `alone`
_here = threading.local()  # in a worker: `ended`, set when nobody waits for its work any more


@contextmanager
def alone() -> Iterator[None]:
    """Products and decompositions of torch, numpy and scipy on one thread, but for what `side_by_side` shares out."""
    if _before:
        yield
        return
    _before.append(torch.get_num_threads())
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(_before.pop())


def side_by_side(work: Callable[[Item], Made], items: Iterable[Item], device: torch.device = CPU) -> Iterator[Made]:
    """What `work` makes of each item, in their order, without gradients; on an accelerator one after the other.

    Items are asked for in the caller's thread, little more than what is worked on. `work` must change nothing shared.
    """
    with alone():
        threads = min(_before[0], MOST) if device.type == "cpu" else 1
        if threads == 1:
            yield from map(torch.no_grad()(work), items)
            return
        waiting: deque[Future[Made]] = deque()
        ended = threading.Event()
        with ThreadPoolExecutor(threads, initializer=_begin, initargs=(ended,)) as pool:
            try:
                for item in items:
                    waiting.append(pool.submit(torch.no_grad()(work), item))
                    if len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                ended.set()
                for late in waiting:
                    late.cancel()


def precise(device: torch.device) -> torch.device:
    """Where float64 is computed for a device: on itself, but for Apple's, which has none."""
    return CPU if device.type == "mps" else device


def gather(
    parts: Iterable[torch.Tensor], found: torch.Tensor, advance: Callable[[float], object] = lambda _: None
) -> torch.Tensor:
    """`found`, filled with parts one behind the other; `advance` is told the length of each.

    A part is let go as soon as it is copied: small results kept one by one would split the threads' free memory.
    """
    done = 0
    for part in parts:
        found[done : done + len(part)] = part
        done += len(part)
        advance(len(part))
    return found


def _begin(ended: threading.Event) -> None:
    torch.set_num_threads(1)
    _here.ended = ended


def stop_if_ended() -> None:
    """Called now and then by long work: leaves it when Ctrl-C or a failure has ended what it is part of."""
    if hasattr(_here, "ended") and _here.ended.is_set():
        raise CancelledError
