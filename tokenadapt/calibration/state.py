"""Where a run stands: written whole or not at all, so that it goes on to the bit after kill -9."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from tokenadapt.atomic import readable_errors, resolved
from tokenadapt.calibration.batches import Place
from tokenadapt.errors import RequestError

if sys.platform != "win32":
    import fcntl

    def _lock(file: IO[str]) -> None:
        """Hold a file until it is closed; OSError where another process does."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
else:
    import msvcrt

    def _lock(file: IO[str]) -> None:
        """Hold a file until it is closed; OSError where another process does."""
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


_FILE: Final = "state.pt"
_REQUEST: Final = "request.json"
_LOCK: Final = "lock"


@dataclass(frozen=True)
class Point:
    """The held-out figure after so much reading."""

    step: int
    tokens: int
    seconds: float
    bits_per_byte: float
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunState:
    """All that the next step depends on."""

    step: int = 0
    tokens: int = 0  # read by the student
    seconds: float = 0.0
    place: Place = field(default_factory=Place)
    curve: tuple[Point, ...] = ()
    best: Point | None = None
    best_values: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    closed: Mapping[str, Any] = field(default_factory=dict)  # what the closed form gave
    start: float = float("nan")  # held-out bits per byte of the student as it came


@dataclass(frozen=True)
class Desk:
    """The folder beside an output in which an unfinished run keeps its state."""

    folder: Path

    @staticmethod
    def of(output: Path) -> Desk:
        """The desk of an output."""
        place = resolved(output)
        return Desk(place.with_name(f".{place.name}.calibration"))

    def check(self, request: Mapping[str, Any], *, resume: bool, restart: bool) -> bool:
        """Whether there is a run to go on with; refuses a run that would silently drop or change another."""
        if restart:
            for name in (_REQUEST, _FILE):
                (self.folder / name).unlink(missing_ok=True)
        noted = self._noted()
        known = None if noted is None else noted["request"]
        if known is None:
            if resume:
                raise RequestError(
                    f"There is no unfinished run for this output (no {self.folder}).", "Leave --resume away."
                )
            return False
        if not resume:
            raise RequestError(
                f"An unfinished run for this output lies in {self.folder}.",
                "Go on with it by --resume, or drop it by --restart.",
            )
        now = json.loads(json.dumps(request))
        for name in sorted({*known, *now}):
            if known.get(name) != now.get(name):
                raise RequestError(
                    f"The unfinished run was started with {name} {known.get(name)!r}, this one says {now.get(name)!r}.",
                    "Resume with the same options, or drop the old run by --restart.",
                )
        return True

    def facts(self) -> dict[str, str]:
        """What was found when the run began: `dtype` and `data` (a fingerprint)."""
        return dict((self._noted() or {}).get("facts", {}))

    def begin(self, request: Mapping[str, Any], facts: Mapping[str, str]) -> None:
        """Note what the run was asked, and what was found."""
        with readable_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(_REQUEST, json.dumps({"request": request, "facts": facts}, indent=1).encode())

    def save(self, state: RunState) -> None:
        """Write the state beside its place, then put it there."""
        plain = {
            **{name: getattr(state, name) for name in ("step", "tokens", "seconds", "optimizer", "closed", "start")},
            "place": asdict(state.place),
            "curve": [asdict(point) for point in state.curve],
            "best": None if state.best is None else asdict(state.best),
            "best_values": dict(state.best_values),
            "values": dict(state.values),
        }
        with readable_errors(self.folder):
            part = self.folder / (_FILE + ".part")
            with part.open("wb") as file:
                torch.save(plain, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.folder / _FILE)

    def load(self) -> RunState | None:
        """The last state, or None where the run had not saved one."""
        file = self.folder / _FILE
        if not file.is_file():
            return None
        try:
            plain = torch.load(file, map_location="cpu", weights_only=True)
            state = RunState(**{**plain, "place": Place(**plain["place"])})
            best = None if plain["best"] is None else Point(**plain["best"])
            return replace(state, curve=tuple(Point(**point) for point in plain["curve"]), best=best)
        except Exception as error:  # whatever torch raises over a damaged file
            raise RequestError(
                f"The state {file} is damaged ({str(error)[:100]}).", "Begin anew by --restart."
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others away while this run lives; what holds no request afterwards is removed."""
        with readable_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / _LOCK).open("w")
        with file:
            try:
                _lock(file)
            except OSError:
                raise RequestError(
                    f"Another process is at work in {self.folder}.", "Wait for it to end, or name another output."
                ) from None
            try:
                yield
            finally:
                if not (self.folder / _REQUEST).exists():
                    self.clear()

    def clear(self) -> None:
        """Drop everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _noted(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.folder / _REQUEST).read_text(encoding="utf-8"))
            return found
        except (OSError, ValueError):
            return None

    def _write(self, name: str, data: bytes) -> None:
        part = self.folder / (name + ".part")
        part.write_bytes(data)
        os.replace(part, self.folder / name)
