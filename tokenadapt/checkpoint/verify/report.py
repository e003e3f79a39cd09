"""What verification found: named checks, each with a figure and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tokenadapt.errors import VerificationError

Verdict = Literal["pass", "warning", "error", "skipped"]
Level = Literal["tables", "files", "full"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    figure: str  # what was measured: a count, a share, a largest difference
    verdict: Verdict
    message: str = ""  # what is wrong and where; empty where nothing is

    def __str__(self) -> str:
        return f"{self.name}: {self.message or self.figure}"


@dataclass(frozen=True)
class VerifyReport:
    """All checks of one run."""

    level: Level
    checks: tuple[Check, ...]

    @property
    def errors(self) -> tuple[str, ...]:
        """A line for each check that failed."""
        return self._lines("error")

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each result that a user should look at."""
        return self._lines("warning")

    def _lines(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(str(check) for check in self.checks if check.verdict == verdict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.errors

    @property
    def summary(self) -> str:
        """One line: how many checks, and which failed."""
        if not self.ok:
            return f"{len(self.errors)} of {len(self.checks)} checks: {'; '.join(self.errors)}"
        warned = f", {len(self.warnings)} with a warning" if self.warnings else ""
        return f"{len(self.checks)} checks at level {self.level}{warned}"

    def strictly(self) -> VerifyReport:
        """The same with every warning an error."""
        hard = (replace(one, verdict="error") if one.verdict == "warning" else one for one in self.checks)
        return replace(self, checks=tuple(hard))

    def raise_errors(self) -> None:
        """Raise VerificationError naming every check that failed."""
        if not self.ok:
            raise VerificationError(
                f"The checkpoint failed {self.summary}.", "If the inputs are intact, please report this."
            )

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and for --json."""
        return {"level": self.level, "ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def passed(name: str, figure: object = "") -> Check:
    """A check that found nothing."""
    return Check(name, str(figure), "pass")


def skipped(name: str, reason: str) -> Check:
    """A check that could not be made, and why."""
    return Check(name, "", "skipped", reason)


def judge(name: str, problems: Iterable[str], figure: object = "", verdict: Verdict = "error") -> Check:
    """A check that passes where there are no problems; else the first three are told, and how many more there are."""
    found = list(problems)
    if not found:
        return passed(name, figure)
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return Check(name, str(figure), verdict, "; ".join(found[:3]) + more)


def some(ids: Iterable[int], shown: int = 5) -> str:
    """A few ids for a message."""
    listed = list(ids)
    return ", ".join(map(str, listed[:shown])) + (", ..." if len(listed) > shown else "")
