"""The road: corpora to counts, counts to a model, model and frame to a tokenizer, tokenizer to a folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokenadapt import __version__
from tokenadapt.corpus import CorpusCounts, Document, read_corpus
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.assemble import Assembled, assemble_bpe
from tokenadapt.training.bpe import train_words
from tokenadapt.training.counts import Counts, Cut, load_counts
from tokenadapt.training.frame import Frame, byte_level_frame
from tokenadapt.training.holdout import Holdout
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.output import write_tokenizer


@dataclass(frozen=True)
class Trained:
    """What a training left: the folder, the tokenizer, what was read, and seconds by stage."""

    folder: Path
    made: Assembled
    corpus: CorpusCounts
    held_out: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


def train_tokenizer(options: TrainingOptions, progress: Progress = SILENT) -> Trained:
    """Train a tokenizer and write it; raises RequestError before any work where the request cannot be met."""
    output = Path(options.output)
    if output.exists() and not options.overwrite:
        raise RequestError(f"The output {output} exists already.", "Name another output, or say --overwrite.")
    frame = byte_level_frame(options)
    size = _model_size(options, frame)
    began = time.monotonic()
    read, holdout = CorpusCounts(), Holdout(options.holdout_bytes, options.seed)
    counts = _counts(options, frame, read, holdout, progress)
    counted = time.monotonic()
    model = train_words(counts, size, min_frequency=options.min_frequency, progress=progress)
    model = model.without(lambda token: token in frame.markers)
    made = assemble_bpe(frame, model, options.pad_vocab_to_multiple)
    seconds = {"count": counted - began, "train": time.monotonic() - counted}
    write_tokenizer(made, output, _record(options, counts, read, made), overwrite=options.overwrite)
    return Trained(output, made, read, tuple(holdout.texts), seconds)


def _model_size(options: TrainingOptions, frame: Frame) -> int:
    """How many tokens the model may have: what special tokens leave, with the whole rounded up to the multiple."""
    whole = -(-options.vocab_size // options.pad_vocab_to_multiple) * options.pad_vocab_to_multiple
    size = whole - len(frame.added)
    if size < 256:
        raise RequestError(
            f"--vocab-size {options.vocab_size} leaves {size} tokens besides {len(frame.added)} special tokens.",
            f"All 256 bytes are always present: give at least {256 + len(frame.added)}.",
        )
    return size


def _counts(options: TrainingOptions, frame: Frame, read: CorpusCounts, holdout: Holdout, progress: Progress) -> Counts:
    cut = Cut("words", frame.words, frame.normalizer, frame.markers)
    if options.counts:
        counts = load_counts([Path(path) for path in options.counts])
    else:
        counts = Counts(cut)
        documents: Iterator[Document] = read_corpus(options.corpora, options.reading(), counts=read, progress=progress)
        counts.add(holdout.apart(documents))
    if not counts.pieces:
        raise RequestError("The corpus holds no text.", "Name a corpus with text, or check --column.")
    return counts.pruned(options.min_count)


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
