"""Which initialisation to calibrate: a few steps from each on the same data. What a loss is at first foretells nothing.

(Of twenty initialisations the one that was best after 50 steps was far from it before: arXiv 2608.03494.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from tokenadapt.calibration.batches import Order
from tokenadapt.calibration.bench import budget, set_up, start
from tokenadapt.calibration.group import Group, join
from tokenadapt.calibration.lesson import memory_named
from tokenadapt.calibration.loop import Loop, Tools
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.pair import open_pair, refuse_other_layers
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress

STEPS: Final = 50


@dataclass(frozen=True)
class Probed:
    """Where one initialisation stands, in held-out bits per byte."""

    name: str
    methods: str
    before: float
    after: float
    source: float
    tokens: int
    seconds: float
    rank: int = 0  # of the process
    why: str = ""

    @property
    def excess(self) -> float:
        """Above the source model."""
        return self.after - self.source

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "excess": self.excess}


def probe(folders: Sequence[str], options: CalibrationOptions, progress: Progress = SILENT) -> tuple[Probed, ...]:
    """Train each folder for `options.steps` steps on the same data and write nothing; best first.

    Raises RequestError where the folders were not made for one tokenizer.
    """
    group = join(options.device)
    progress = progress if group.first else SILENT
    found: list[Probed] = []
    seen = ""
    for folder in folders:
        progress.note(f"probe {folder}")
        one, fingerprint = _probe(replace(options, folder=folder), group, progress)
        if seen and fingerprint != seen:
            raise RequestError(
                f"{folder} was not made from the same source for the same tokenizer as {folders[0]}.",
                "Probe folders that differ in their initialisation only.",
            )
        seen = fingerprint
        found.append(one)
    group.leave()
    return tuple(sorted(found, key=lambda one: one.after))


def _probe(options: CalibrationOptions, group: Group, progress: Progress) -> tuple[Probed, str]:
    pair = open_pair(options, progress)
    refuse_other_layers(pair)
    with memory_named(options.batch_tokens):
        bench = set_up(pair, options, group, progress)
        tools = Tools(
            lesson=bench.lesson,
            trained=bench.people.trained,
            order=Order(bench.data.examples, options.seed),
            score=bench.score,
            group=group,
            progress=progress,
        )
        ended = Loop(tools, options, budget(options), bench.source).run(start(bench, options, progress))
    last = ended.state.curve[-1]
    methods = ", ".join(dict.fromkeys(pair.manifest.methods.values())) if pair.manifest else "unknown"
    told = Probed(
        Path(options.folder).name,
        methods,
        ended.state.start,
        last.bits_per_byte,
        bench.source,
        last.tokens,
        last.seconds,
        group.rank,
        ended.broken,
    )
    return told, f"{pair.checkpoint.rows} {bench.data.fingerprint} {bench.source:.9f}"
