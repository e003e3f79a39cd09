"""The result: the transplanted folder with other rows, its manifest continued and its card updated."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tokenadapt.calibration.layers import ADAPTER, Lora, file_names
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.outcome import Calibrated
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.plot import FILE as CURVE
from tokenadapt.calibration.plot import draw_curve
from tokenadapt.calibration.students import Class
from tokenadapt.checkpoint.card import FILE as CARD
from tokenadapt.checkpoint.card import calibration_section
from tokenadapt.checkpoint.folder import INDEX
from tokenadapt.checkpoint.manifest import FILE as MANIFEST
from tokenadapt.checkpoint.manifest import Manifest, describe_input, describe_output, library_versions
from tokenadapt.checkpoint.saved_plan import FILE as PLAN
from tokenadapt.checkpoint.saved_plan import mark_adjusted, vocabulary_hash
from tokenadapt.checkpoint.shards import FLOATS
from tokenadapt.checkpoint.verify import VerifyReport, verify
from tokenadapt.checkpoint.writer import write_checkpoint_tensors
from tokenadapt.checkpoint.written import NewTable
from tokenadapt.plan import BLOCK_ROWS, Role, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab.types import Ids


@dataclasses.dataclass(frozen=True)
class Changed:
    """What differs from the folder that was calibrated."""

    ids: Ids  # of the trained rows, ascending
    rows: Mapping[Role, Tensor]  # (M, D) float32 by role of the student's tables
    tensors: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)  # others, under the checkpoint's names
    adapter: Lora | None = None  # kept apart
    adjusted: bool = False  # copied rows changed too


def changed_by(pair: Pair, people: Class, options: CalibrationOptions) -> Changed:
    """What a run has trained, ready to be written."""
    tables, changes = people.student.tables(), people.changes
    rows = {role: table.current() for role, table in tables.items()}
    adapter = changes if isinstance(changes, Lora) and not options.merge else None
    tensors: dict[str, Tensor] = {}
    if changes is not None and adapter is None:
        made = changes.tensors()
        kept = {ref.name: FLOATS.get(ref.dtype) for shard in pair.checkpoint.shards for ref in shard.tensors}
        for name, file_name in file_names(pair.checkpoint, list(made)).items():
            tensors[file_name] = made[name].to(kept[file_name] or torch.float32)
    return Changed(tables["output"].ids, rows, tensors, adapter, options.train.startswith("rows"))


def write_result(
    pair: Pair, changed: Changed, told: Calibrated, staging: Path, progress: Progress = SILENT
) -> Manifest:
    """Write the whole result into `staging`: tensors, every small file as it was, manifest and card."""
    checkpoint = pair.checkpoint
    tables: dict[Role, NewTable] = {}
    for role in pair.roles:
        table = checkpoint.table(role)
        blocks = _Blocks(table, changed.ids, changed.rows[role])
        tables["input" if checkpoint.tied else role] = NewTable(table.shape, table.dtype, blocks)
    biases = {ref.name: checkpoint.bias(ref) for ref in checkpoint.biases}
    written = write_checkpoint_tensors(
        checkpoint, staging, tables, biases, replaced=changed.tensors, hash_untouched=True, progress=progress
    )
    _copy_small_files(checkpoint.folder, {shard.name for shard in checkpoint.shards}, staging)
    before = pair.manifest or _first_manifest(pair)
    if changed.adjusted and (staging / PLAN).is_file():
        before = dataclasses.replace(before, counts=mark_adjusted(staging / PLAN, changed.ids))
    if changed.adapter is not None:
        changed.adapter.save(staging / ADAPTER)
    manifest = dataclasses.replace(
        before,
        **describe_output(staging, written),
        calibrations=(*before.calibrations, told.record()),
        versions=library_versions(),
        verify=None,
    )
    manifest.write(staging)
    if not draw_curve(told, staging / CURVE):
        progress.note("no picture of the curve: matplotlib is not installed (pip install 'tokenadapt[calibrate]')")
    return manifest


def check_result(
    pair: Pair, staging: Path, level: str, *, strict: bool, trust_remote_code: bool, progress: Progress = SILENT
) -> VerifyReport:
    """Every check of a transplant's result; raises VerificationError."""
    report = verify(
        staging,
        level=cast(Any, level),
        source=pair.source.folder,
        strict=strict,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    report.raise_errors()
    return report


def finish_result(manifest: Manifest, report: VerifyReport, staging: Path) -> None:
    """Put the report into the manifest, and what was done into the card."""
    complete = dataclasses.replace(manifest, verify=report.as_dict())
    complete.write(staging)
    card = staging / CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else "# A calibrated model\n"
    section = calibration_section(complete)
    if (staging / CURVE).is_file():
        section += f"\n![held-out bits per byte]({CURVE})\n"
    found = re.compile(r"## Calibration\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    before = found.sub("", text)
    place = before.find("## How to load")
    text = before[:place] + section + "\n" + before[place:] if place >= 0 else before.rstrip() + "\n\n" + section
    card.write_text(text, encoding="utf-8", newline="\n")


class _Blocks:
    """A table with some rows replaced, in blocks, anew at each call. All other rows keep their bits."""

    def __init__(self, table: Table, ids: Ids, rows: Tensor) -> None:
        self.table, self.ids, self.rows = table, ids, rows

    def __call__(self) -> Iterator[Tensor]:
        total, dtype = self.table.shape[0], self.table.dtype
        limit = torch.finfo(dtype).max
        for first in range(0, total, BLOCK_ROWS):
            last = min(first + BLOCK_ROWS, total)
            block = self.table.rows(np.arange(first, last))
            low, high = np.searchsorted(self.ids, (first, last))
            if high > low:
                where = torch.from_numpy(self.ids[low:high] - first)
                block[where] = self.rows[low:high].clamp(-limit, limit).to(dtype)
            yield block


def _copy_small_files(folder: Path, shards: set[str], staging: Path) -> None:
    for path in sorted(folder.iterdir()):
        known = path.name in shards or path.name in (MANIFEST, INDEX, CURVE) or path.name.startswith(".")
        if path.is_file() and not known and not (staging / path.name).exists():
            shutil.copyfile(path, staging / path.name)


def _first_manifest(pair: Pair) -> Manifest:
    """For a folder that some other program made: what can be told of it."""
    model_files = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    config = json.loads((pair.folder / "config.json").read_text(encoding="utf-8"))
    return Manifest(
        source=describe_input(
            str(pair.source.folder),
            pair.source.folder,
            model_files,
            vocabulary=vocabulary_hash(pair.teacher),
            tied=pair.source.tied,
            rows=pair.source.rows,
        ),
        target=describe_input(str(pair.folder), pair.folder, model_files, vocabulary=vocabulary_hash(pair.student)),
        methods=dict.fromkeys(pair.roles, "unknown"),
        options={},
        seed=0,
        counts=pair.alignment.counts(),
        spelled_alike=pair.alignment.spelled_alike,
        tied=pair.checkpoint.tied,
        tables={},
        tensors=(),
        shards=(),
        files={},
        notes=(f"made by another program ({config.get('model_type', 'model')}); the record begins here",),
    )
