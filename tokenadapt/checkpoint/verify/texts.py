"""What the tokenizer does to text: round trips, and digits beside the source's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tokenizers import Tokenizer

from tokenadapt.checkpoint.tokenizer_files import SAMPLES
from tokenadapt.checkpoint.verify.probes import TEXTS
from tokenadapt.checkpoint.verify.report import Check, judge, skipped
from tokenadapt.checkpoint.verify.subject import Subject

NUMBERS: Final = "In 1234567 and 89 and 2024"


def text_checks(subject: Subject) -> Iterator[Check]:
    """Warnings: text that does not come back, digits that are cut otherwise than the source's."""
    texts = [*TEXTS, *SAMPLES]
    lost = [text for text in texts if not _comes_back(subject.tokenizer, text)]
    problems = [f"{len(lost)} of {len(texts)} texts do not come back as they were, {lost[0][:30]!r}"] if lost else []
    yield judge("round trip", problems, f"{len(texts) - len(lost)} of {len(texts)} texts", "warning")
    yield _digits(subject)


def _comes_back(tokenizer: Tokenizer, text: str) -> bool:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return bool(tokenizer.decode(ids, skip_special_tokens=False) == text)


def digit_policy(tokenizer: Tokenizer) -> int:
    """The most digits that one token holds."""
    encoded = tokenizer.encode(NUMBERS, add_special_tokens=False)
    return max((sum(NUMBERS[i].isdigit() for i in range(*offset)) for offset in encoded.offsets), default=0)


def _digits(subject: Subject) -> Check:
    """Old models read numbers in their own pieces: rows of `123` are new to a model that read digit by digit."""
    ours = digit_policy(subject.tokenizer)
    file = subject.source.folder / "tokenizer.json" if subject.source else None
    if file is None or not file.is_file():
        return skipped("digits", f"up to {ours} a token; compared with the source only where it is given: --source")
    theirs = digit_policy(Tokenizer.from_file(str(file)))
    problems = [f"up to {ours} digits a token, {theirs} in the source: arithmetic rests on new rows"]
    return judge("digits", problems if ours != theirs else [], f"up to {ours} a token", "warning")
