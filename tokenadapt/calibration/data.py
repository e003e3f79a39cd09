"""What is read: a corpus or the source model's own texts, split into text to learn from and text held out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokenadapt.calibration.examples import Example, Side, Text, make_examples
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.pair import Pair
from tokenadapt.corpus import CorpusOptions, read_corpus
from tokenadapt.errors import RequestError
from tokenadapt.evaluation.encode import TextEncoder
from tokenadapt.progress import SILENT, Progress

_DOCUMENT_BYTES = 16 << 10  # longest document of a text file
_EVERY = 16  # one document in so many is held out where no text is given for that
_LEAST = 8  # examples below which training says nothing


@dataclass(frozen=True)
class Coverage:
    """How much of the new vocabulary the data hold."""

    new: int  # new tokens there are
    seen: int  # of them that occur
    occurrences: int
    tokens: int  # all tokens of the data, as the student reads them

    def __str__(self) -> str:
        share = self.seen / self.new if self.new else 1.0
        rate = self.occurrences / self.tokens if self.tokens else 0.0
        return (
            f"{self.seen:,} of {self.new:,} new tokens occur in the data ({share:.1%}); "
            f"they are {rate:.1%} of its {self.tokens:,} tokens"
        )


@dataclass(frozen=True)
class Data:
    """Examples to learn from, texts to measure on, and what is known of both."""

    examples: list[Example]
    held_out: tuple[str, ...]
    coverage: Coverage
    fingerprint: str  # of all texts, in order


def sides(pair: Pair, options: CalibrationOptions, positions: int) -> tuple[Side, Side]:
    """How student and teacher read: with the begin tokens that evaluation would give them."""
    made = []
    for loaded in (pair.student_tokenizer, pair.teacher_tokenizer):
        encoder = TextEncoder.of(loaded)
        prefix, _ = encoder.frame(options.bos, "causal")
        room = min(options.context, positions) - len(prefix)
        made.append(Side(encoder, prefix, room))
    return made[0], made[1]


def read_texts(specs: Sequence[str], options: CalibrationOptions, progress: Progress = SILENT) -> Iterator[Text]:
    """Documents of a corpus."""
    reading = CorpusOptions(
        column=options.column,
        split=options.split,
        on_error=options.on_error,
        seed=options.seed,
        block_bytes=_DOCUMENT_BYTES,
        sample_bytes=options.sample_bytes,
    )
    for document in read_corpus(specs, reading, progress=progress):
        yield Text(document.text, f"{Path(document.source).name}:{document.line}")


def split(
    texts: Iterable[Text], held_out: Iterable[Text] | None, options: CalibrationOptions
) -> tuple[list[Text], list[Text]]:
    """Text to learn from, and text held out: what was given for it, else one document in sixteen by its hash."""
    learn: list[Text] = []
    kept: list[Text] = []
    size = 0
    for text in texts:
        aside = held_out is None and size < options.held_out_bytes and _lot(text.text)
        if aside:
            size += len(text.text.encode())
        (kept if aside else learn).append(text)
    if held_out is None and not kept and len(learn) > 1:
        kept.append(learn.pop())
    for text in held_out or ():
        if size >= options.held_out_bytes:
            break
        size += len(text.text.encode())
        kept.append(text)
    return learn, _clipped(kept, options.held_out_bytes)


def _lot(text: str) -> bool:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()[0] % _EVERY == 0


def _clipped(texts: list[Text], limit: int) -> list[Text]:
    """The texts without what the last one has too much."""
    over = sum(len(text.text.encode()) for text in texts) - limit
    if over <= 0 or not texts:
        return texts
    raw = texts[-1].text.encode()
    return [*texts[:-1], Text(raw[: max(1, len(raw) - over)].decode(errors="ignore"), texts[-1].name)]


def make_data(
    learn: list[Text], kept: list[Text], pair: Pair, readers: tuple[Side, Side], progress: Progress = SILENT
) -> Data:
    """Encode, cut at shared positions, and count; RequestError where there is nothing to learn from."""
    if not learn or not any(text.text.strip() for text in learn):
        raise RequestError("The corpus holds no text.", "Check its files and its column.")
    if not any(text.text for text in kept):
        raise RequestError(
            "The corpus is a single document: nothing is left to hold out.", "Give more text, or --held-out FILE."
        )
    with progress.stage("cut texts where both tokenizers agree", len(learn), "texts") as advance:
        examples = make_examples(learn, *readers)
        advance(len(learn))
    if len(examples) < _LEAST:
        raise RequestError(
            f"The corpus gives only {len(examples)} stretches that both tokenizers can read.",
            "Give more text, or a longer --context.",
        )
    coverage = _coverage(examples, pair)
    if coverage.new and not coverage.seen:
        raise RequestError(
            f"The corpus teaches nothing: {coverage}.", "Give text like what the tokenizer is for, or say --cover 1."
        )
    return Data(examples, tuple(text.text for text in kept), coverage, _fingerprint(learn, kept))


def _coverage(examples: list[Example], pair: Pair) -> Coverage:
    is_new = np.zeros(pair.checkpoint.rows, dtype=bool)
    is_new[pair.alignment.missing] = True
    count = np.zeros(pair.checkpoint.rows, dtype=np.int64)
    for example in examples:
        np.add.at(count, example.ours[example.prefix[0] :], 1)
    new = count[is_new]
    return Coverage(int(is_new.sum()), int((new > 0).sum()), int(new.sum()), int(count.sum()))


def _fingerprint(*parts: list[Text]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for text in part:
            digest.update(hashlib.sha256(text.text.encode("utf-8", "replace")).digest())
    return digest.hexdigest()
