"""The report after a training: the new tokenizer on lines that it has not seen, beside the one it is like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenadapt.corpus import Document
from tokenadapt.training.assemble import Assembled
from tokenadapt.training.compare import Subject, borders, measure, overlap, supertoken_value
from tokenadapt.training.inventory import inventory
from tokenadapt.vocab.load import LoadedTokenizer

SAMPLE_LENGTH = 160  # characters of the sample line


def training_report(made: Assembled, base: LoadedTokenizer | None, held_out: Sequence[str]) -> dict[str, Any]:
    """Figures on held-out text, the supertokens that save most, and the vocabulary by script and length.

    Without held-out text (none was asked for, or the corpus is small) only the vocabulary is told.
    """
    subjects = [Subject.of(_loaded(made), "this tokenizer")]
    if base is not None:
        subjects.append(Subject.of(base))
    report: dict[str, Any] = {"vocabulary": inventory(subjects[0].vocab), "held_out_bytes": 0, "tokenizers": []}
    if len(subjects) > 1:
        report["shared_byte_strings"] = overlap(subjects[0], subjects[1])
    documents = [Document(text, "held out", "held out", 1) for text in held_out]
    if documents:
        report["held_out_bytes"] = sum(len(text.encode()) for text in held_out)
        report["tokenizers"] = [measure(subject, documents).as_dict() for subject in subjects]
        report["supertokens"] = [
            {"text": text, "occurrences": count, "saved": saved}
            for text, count, saved in supertoken_value(subjects[0], documents)
        ]
        line = sample_line(held_out)
        report["sample"] = {subject.name: borders(subject, line) for subject in subjects}
    return report


def sample_line(texts: Sequence[str]) -> str:
    """A telling line: the first one long enough, cut to a length that fits a screen twice."""
    lines = [line.strip() for text in texts for line in text.split("\n")]
    chosen = next((line for line in lines if len(line.split()) >= 15), max(lines, key=len, default=""))
    return chosen[:SAMPLE_LENGTH]


def _loaded(made: Assembled) -> LoadedTokenizer:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=made.tokenizer(), **made.roles)
    return LoadedTokenizer("this tokenizer", Path(), fast)
