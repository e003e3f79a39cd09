"""The road: corpora to counts, counts to a model, model and frame to a tokenizer, tokenizer to a folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tokenadapt import __version__
from tokenadapt.corpus import CorpusCounts, Document, read_corpus
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.assemble import Assembled
from tokenadapt.training.counts import Counts
from tokenadapt.training.extend import extend
from tokenadapt.training.families import FAMILIES, Order
from tokenadapt.training.frame import Frame
from tokenadapt.training.holdout import Holdout
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.output import write_tokenizer
from tokenadapt.training.prepare import Prepared, prepare, stored_counts
from tokenadapt.training.report import training_report

LEAST: Final = {"wordpiece": 2, "char-unigram": 2}  # tokens of the smallest model; elsewhere all bytes


@dataclass(frozen=True)
class Trained:
    """What a training left: the folder, the tokenizer, what was read, and seconds by stage."""

    folder: Path
    made: Assembled
    corpus: CorpusCounts
    text_bytes: int
    held_out: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def train_tokenizer(options: TrainingOptions, progress: Progress = SILENT) -> Trained:
    """Train a tokenizer and write it; raises RequestError before any work where the request cannot be met."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise RequestError(f"The output {output} exists already.", "Name another output, or say --overwrite.")
    prepared = prepare(options)
    size = _model_size(options, prepared.frame)
    began = time.monotonic()
    read, holdout = CorpusCounts(), Holdout(options.holdout_bytes, options.seed)
    counts = _counts(options, prepared, read, holdout, progress)
    counted = time.monotonic()
    if prepared.extended is not None:
        made = extend(prepared.extended, prepared.frame, counts, options, progress)
    else:
        made = FAMILIES[prepared.frame.kind](Order(options, prepared.frame, counts, size, progress))
    seconds = {"count": counted - began, "train": time.monotonic() - counted}
    made = _with_size_note(made, options)
    report = training_report(made, prepared.base, holdout.texts)
    record = {**_record(options, counts, read, made), "seconds": seconds, "report": report}
    write_tokenizer(made, output, record, overwrite=options.overwrite)
    return Trained(output, made, read, counts.bytes, tuple(holdout.texts), seconds, report)


def _model_size(options: TrainingOptions, frame: Frame) -> int:
    """How many tokens the model may have: what special tokens leave, with the whole rounded up to the multiple."""
    whole = -(-options.vocab_size // options.pad_vocab_to_multiple) * options.pad_vocab_to_multiple
    size = whole - len(frame.added)
    if size < LEAST.get(frame.kind, 256):
        raise RequestError(
            f"--vocab-size {options.vocab_size} leaves {size} tokens besides {len(frame.added)} special tokens.",
            f"All 256 bytes are always present: give at least {LEAST.get(frame.kind, 256) + len(frame.added)}.",
        )
    return size


def _counts(
    options: TrainingOptions, prepared: Prepared, read: CorpusCounts, holdout: Holdout, progress: Progress
) -> Counts:
    if options.counts:
        counts = stored_counts(prepared, options.counts)
    else:
        counts = Counts(prepared.cut)
        documents: Iterator[Document] = read_corpus(options.corpora, options.reading(), counts=read, progress=progress)
        counts.add(holdout.apart(documents))
    if not counts.pieces:
        raise RequestError("The corpus holds no text.", "Name a corpus with text, or check --column.")
    return counts.pruned(options.min_count)


def _with_size_note(made: Assembled, options: TrainingOptions) -> Assembled:
    if made.size >= options.vocab_size:
        return made
    note = f"The corpus gives only {made.size:,} of the {options.vocab_size:,} tokens asked for."
    return replace(made, notes=(*made.notes, note))


def _record(options: TrainingOptions, counts: Counts, read: CorpusCounts, made: Assembled) -> dict[str, Any]:
    import tokenizers

    return {
        "tokenadapt": __version__,
        "versions": {"tokenizers": tokenizers.__version__, "python": platform.python_version()},
        "options": asdict(options),
        "corpus": {
            "files": read.files, "documents": counts.documents, "bytes": counts.bytes,
            "skipped": dict(read.skipped), "skipped_examples": read.examples,
            "pieces": len(counts.pieces), "occurrences": counts.pieces.total(), "below_min_count": counts.dropped,
        },
        "vocabulary": made.size,
        "notes": list(made.notes),
    }  # fmt: skip
