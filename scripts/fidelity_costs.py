"""What making rows costs: seconds, and memory beyond what was held before."""

from __future__ import annotations

import ctypes
import gc
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")


@dataclass
class Cost:
    """Filled when its block ends. Mapped files that were read count as memory; None where no system tells it."""

    seconds: float = 0.0
    peak_mb: float | None = None

    def plain(self) -> dict[str, float]:
        return {"seconds": round(self.seconds, 1), **({} if self.peak_mb is None else {"peak_mb": round(self.peak_mb)})}


@contextmanager
def measured() -> Iterator[Cost]:
    """The time of a block, and its peak resident memory above what the process held when it began."""
    cost, before = Cost(), _reset()
    began = time.perf_counter()
    try:
        yield cost
    finally:
        cost.seconds = time.perf_counter() - began
        cost.peak_mb = None if before is None else max(0.0, _resident("VmHWM") - before)


def _reset() -> float | None:
    """Forget the peak until now; megabytes held, or None where this is no Linux."""
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # not every system has it
        ctypes.CDLL(None).malloc_trim(0)  # memory that is free already would hide what a block takes
    try:
        (PROCESS / "clear_refs").write_text("5", encoding="ascii")
        return _resident("VmRSS")
    except (OSError, IndexError):
        return None


def _resident(name: str) -> float:
    status = (PROCESS / "status").read_text(encoding="ascii")
    return int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) / 1024
