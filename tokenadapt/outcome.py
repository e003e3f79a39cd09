"""What a transplant did, and how long each stage took."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokenadapt.overlap import Overlap


@dataclass(frozen=True)
class Outcome:
    """What a transplant did."""

    output: str
    overlap: Overlap
    template: str
    notes: tuple[str, ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    verified: str
    stages: dict[str, float]  # seconds
    seconds: float
    pushed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        yield
        self.stages[name] = round(time.perf_counter() - began, 3)

    @property
    def seconds(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self.began
