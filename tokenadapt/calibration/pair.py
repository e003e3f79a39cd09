"""A transplanted checkpoint and the source that it came from, opened and known to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.checkpoint.manifest import FILE, Manifest, file_digest, read_manifest
from tokenadapt.checkpoint.saved_plan import FILE as PLAN
from tokenadapt.checkpoint.saved_plan import load_plan, vocabulary_hash
from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.errors import RequestError
from tokenadapt.locate import is_hub_id, locate
from tokenadapt.plan import Role, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab import align, byte_vocab
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids

_TAKEN = (How.COPIED, How.SPECIAL, How.MAPPED)
_BLOCK = 8192
_OTHER_LAYERS = ("rows+norms", "lora", "rows+lora")


@dataclass(frozen=True)
class Pair:
    """Student (the transplanted folder) and teacher (its source): headers, tokenizers, and how ids correspond."""

    checkpoint: SourceCheckpoint
    source: SourceCheckpoint
    manifest: Manifest | None
    alignment: Alignment
    student_tokenizer: LoadedTokenizer
    teacher_tokenizer: LoadedTokenizer
    student: ByteVocab
    teacher: ByteVocab

    @property
    def folder(self) -> Path:
        """The transplanted folder."""
        return self.checkpoint.folder

    @property
    def roles(self) -> tuple[Role, ...]:
        """The student's tables; one table in both roles learns as an output table."""
        return ("output",) if self.checkpoint.tied else ("input", "output")

    @property
    def common(self) -> Ids:
        """Student ids that have a teacher's row."""
        return np.flatnonzero(self.alignment.source_id >= 0)

    def trained(self, train: str) -> Ids:
        """Ids whose rows are trained: the missing ones, or all that text reaches."""
        if train in ("new", "lora"):
            return self.alignment.missing
        return np.flatnonzero(self.alignment.how != How.UNUSED)

    def bias(self, which: SourceCheckpoint) -> torch.Tensor | None:
        """A head's bias, where the model has one."""
        biases = [which.bias(ref) for ref in which.biases]
        return biases[0].reshape(-1) if biases else None


def open_pair(options: CalibrationOptions, progress: Progress = SILENT) -> Pair:
    """Open both sides; RequestError where they cannot be found or do not belong together."""
    folder = locate(options.folder, "model")
    with progress.stage("read both checkpoints and tokenizers"):
        checkpoint = open_source(folder, trust_remote_code=options.trust_remote_code)
        if checkpoint.kind != "causal":
            raise RequestError(f"{options.folder} is no causal model.", "Only causal language models are calibrated.")
        manifest = read_manifest(folder) if (folder / FILE).is_file() else None
        place = _find_source(options, folder, manifest)
        if manifest is not None:
            _check_unchanged(manifest, place)
        source = open_source(place, trust_remote_code=options.trust_remote_code)
        loaded = [load_tokenizer(str(one), trust_remote_code=options.trust_remote_code) for one in (folder, place)]
        student, teacher = byte_vocab(loaded[0]), byte_vocab(loaded[1])
    alignment = _alignment(folder, manifest, (student, teacher), (checkpoint, source))
    pair = Pair(checkpoint, source, manifest, alignment, loaded[0], loaded[1], student, teacher)
    if checkpoint.width != source.width:
        raise RequestError(
            f"{place.name} is not the source of {options.folder}: its rows have {source.width} numbers, "
            f"these {checkpoint.width}.",
            "Name the right one with --source.",
        )
    with progress.stage("compare copied rows with the source's"):
        return _with_true_copies(pair)


def refuse_other_layers(pair: Pair) -> None:
    """RequestError where a calibration changed layers: teacher and student could not share them."""
    told = pair.manifest.calibrations if pair.manifest is not None else ()
    changed = [str(one.get("train")) for one in told if one.get("train") in _OTHER_LAYERS]
    if changed:
        raise RequestError(
            f"{pair.folder} was calibrated with --train {changed[0]}: its layers are not its source's any more.",
            "Start from the transplant, or from a calibration of rows.",
        )


def _find_source(options: CalibrationOptions, folder: Path, manifest: Manifest | None) -> Path:
    if options.source:
        return locate(options.source, "model")
    if manifest is None:
        raise RequestError(
            f"{options.folder} has no {FILE} that names its source model.",
            "Name the model that it was made from: --source MODEL (a folder or a Hub id).",
        )
    spec = manifest.source.spec
    for place in (Path(spec), folder.resolve().parent / spec):
        if spec != "pocket" and place.is_dir() and place.resolve() != folder.resolve():
            return place
    if spec == "pocket" or (is_hub_id(spec) and "/" in spec):
        return locate(spec, "model", revision=manifest.source.revision)
    raise RequestError(
        f"The source model {spec!r}, which {FILE} names, is not here: it was a folder of that name.",
        "Say where it is: --source FOLDER.",
    )


def _check_unchanged(manifest: Manifest, place: Path) -> None:
    for name, digest in manifest.source.files.items():
        if not (place / name).is_file() or file_digest(place / name) != digest:
            state = "has changed since the transplant" if (place / name).is_file() else "is gone"
            raise RequestError(
                f"{place} is not the source as it was: {name} {state}.",
                "Name the unchanged source with --source, or transplant again.",
            )


def _alignment(
    folder: Path,
    manifest: Manifest | None,
    vocabularies: tuple[ByteVocab, ByteVocab],
    checkpoints: tuple[SourceCheckpoint, SourceCheckpoint],
) -> Alignment:
    """From the plan where there is one, which knows the user's own maps; else anew."""
    student, teacher = vocabularies
    if manifest is not None and manifest.source.vocabulary not in ("", vocabulary_hash(teacher)):
        raise RequestError(
            "The source model's vocabulary is not the one that the transplant started from.",
            "Name the right source with --source.",
        )
    if (folder / PLAN).is_file():
        found = load_plan(folder).alignment
        if len(found.how) == checkpoints[0].rows:
            return found
    return align(teacher, student, source_rows=checkpoints[1].rows, target_rows=checkpoints[0].rows)


def _with_true_copies(pair: Pair) -> Pair:
    """Check that rows said to be copied are the source's.

    With a manifest a row that is not is a sign of another source; without one such a row counts as made.
    """
    alignment = pair.alignment
    taken = np.flatnonzero(np.isin(alignment.how, _TAKEN))
    differing = np.zeros(len(taken), dtype=bool)
    for role in pair.roles:
        differing |= _differing(pair.checkpoint.table(role), pair.source.table(role), taken, alignment.source_id[taken])
    if not differing.any():
        return pair
    if pair.manifest is not None:
        raise RequestError(
            f"{int(differing.sum()):,} copied rows of {pair.folder} are not those of {pair.source.folder} "
            f"(id {int(taken[differing][0])} the first).",
            "The source or the folder has changed: name the right source with --source, or transplant again.",
        )
    how, source_id = alignment.how.copy(), alignment.source_id.copy()
    how[taken[differing]], source_id[taken[differing]] = How.MISSING, -1
    return Pair(**{**pair.__dict__, "alignment": Alignment(source_id, how, alignment.notes, alignment.spelled_alike)})


def _differing(table: Table, old: Table, ids: Ids, sources: Ids) -> NDArray[np.bool_]:
    found = np.zeros(len(ids), dtype=bool)
    for first in range(0, len(ids), _BLOCK):
        part = slice(first, first + _BLOCK)
        ours = table.rows(ids[part])
        found[part] = (ours != old.rows(sources[part]).to(ours.dtype)).any(1).numpy()
    return found
