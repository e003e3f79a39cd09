"""Ctrl-C and SIGTERM wait until a step is done, so that what is saved is whole. A second one does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tokenadapt.errors import Terminated
from tokenadapt.progress import Progress


class Stop:
    """Whether somebody asked to stop, and by what."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def error(self) -> KeyboardInterrupt:
        """The exception that the signal would have raised."""
        return Terminated() if self.signal == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def deferred(progress: Progress) -> Iterator[Stop]:
    """Within this, the first signal is noted and the next one acts. Threads other than the main one change nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        for known, handler in before.items():
            signal.signal(known, handler)
        progress.note("stopping once this step is done; a second Ctrl-C does not wait, and loses what is not saved")

    for number in before:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
