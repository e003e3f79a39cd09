"""What a calibration did: figures for people, manifests and cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tokenadapt.calibration.data import Coverage
from tokenadapt.calibration.state import Point


@dataclass(frozen=True)
class Calibrated:
    """One finished run."""

    output: str
    train: str
    objective: str
    options: Mapping[str, Any]  # those that differ from their defaults
    data: str  # what was read, without paths of this machine
    coverage: Coverage
    fingerprint: str
    held_out_bytes: int
    source: float  # bits per byte of the source model on the held-out text
    before: float  # of the student as it came
    closed: Mapping[str, Any]  # what the closed form alone gave
    best: Point
    curve: tuple[Point, ...]
    why: str  # it ended
    broken: str
    parameters: int
    dtype: str
    processes: int
    verified: str = ""
    warnings: tuple[str, ...] = ()
    rank: int = 0  # of the process

    @property
    def after(self) -> float:
        """Held-out bits per byte of the result."""
        return self.best.bits_per_byte

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "after": self.after}

    def lines(self) -> list[str]:
        """For people."""
        last = self.curve[-1]
        found = [
            f"Held out, {self.held_out_bytes:,} bytes, in bits per byte: source {self.source:.4f}, "
            f"before {self.before:.4f} ({self.before - self.source:+.4f}), "
            f"after {self.after:.4f} ({self.after - self.source:+.4f}).",
            f"Read {last.tokens:,} tokens in {last.step:,} steps and {last.seconds / 60:.1f} minutes; "
            f"the best was step {self.best.step:,}; it ended because {self.why}.",
        ]
        if self.coverage.new and self.coverage.seen < self.coverage.new / 2:
            found.append(f"Warning: {self.coverage}: the others changed little. --cover finds or writes text for them.")
        return [*found, *([f"Warning: {self.broken}"] if self.broken else [])]

    def record(self) -> dict[str, Any]:
        """What the manifest keeps."""
        kept = self.as_dict()
        for name in ("output", "verified", "warnings", "rank"):
            del kept[name]
        return kept
