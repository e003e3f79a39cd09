"""Two-stage supertokens (SuperBPE, Liu et al. 2025, arXiv 2503.13423) on the stock trainer.

Stage one learns ordinary merges inside words. Stage two writes each stretch of text as first-stage tokens, one code
point a token, and lets the stock trainer merge those: its merges, translated back, follow the first ones. Code points
rise with the tokens' ranks, so that ties break as in plain BPE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import regex
from tokenizers import models

from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.bpe import Merges, train_words
from tokenadapt.training.counts import Counts, Cut
from tokenadapt.training.engine import run_job
from tokenadapt.training.symbols import FIRST_SYMBOL, rewrite
from tokenadapt.training.worker import Job
from tokenadapt.vocab.letters import from_letters

_GRAPHEME: Final = regex.compile(r"\X")


@dataclass(frozen=True)
class TwoStage:
    """`transition`: share of the vocabulary that is ordinary; `max_words`: most words that a token may hold."""

    transition: float = 0.9
    max_words: int = 4
    min_frequency: int = 2


def train_two_stage(
    counts: Counts, words: Cut, size: int, rules: TwoStage, progress: Progress = SILENT
) -> tuple[Merges, int]:
    """Merges of both stages from counts of stretches, and how many tokens the first stage made."""
    start = max(256, round(size * rules.transition))
    first = train_words(
        counts.words(words), start, min_frequency=rules.min_frequency, name="merges inside words", progress=progress
    )
    return continue_merges(first, counts, size, rules, progress), len(first.tokens)


def continue_merges(first: Merges, counts: Counts, size: int, rules: TwoStage, progress: Progress = SILENT) -> Merges:
    """`first` with more merges learnt on its own tokens over the pieces of `counts`, up to `size` tokens.

    More merges than wanted are trained, since tokens that break a rule are dropped with all that depend on them.
    """
    tokens = first.tokens
    wanted, surplus = size - len(tokens), 1.2
    if wanted <= 0:
        return first.first(size)
    text = rewrite(first, counts, progress)
    alphabet = [chr(FIRST_SYMBOL + index) for index in range(len(tokens))]
    least = max(rules.min_frequency, text.likely_count(round(wanted * surplus)))
    ordinary = frozenset(tokens)
    spelled = [from_letters(token) or b"" for token in tokens]
    breaking = np.asarray([has_line_break(data) for data in spelled])
    wordlike = np.asarray([any(map(str.isalnum, data.decode(errors="replace"))) for data in spelled])
    while True:
        asked = len(tokens) + round(wanted * surplus)
        words, numbers = text.fragments(least, breaking, wordlike)
        job = Job("bpe", words, numbers, asked, alphabet, min_frequency=least)
        learnt = _translated(run_job(job, name="merges across words", progress=progress)["merges"], tokens)
        whole = Merges(first.letters, (*first.merges, *learnt))
        if len(whole.tokens) < asked and least > rules.min_frequency:
            least = max(rules.min_frequency, least // 3)
            continue
        kept = reachable(
            whole.without(
                lambda token: token not in ordinary and not is_allowed(from_letters(token) or b"", rules.max_words)
            ),
            len(first.merges),
        ).first(size)
        if len(kept.tokens) >= size or len(whole.tokens) < asked or surplus > 4:
            return kept
        surplus *= 1.5


def _translated(merges: Sequence[Sequence[str]], tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Merges over code points back to merges over byte letters; each code point stands for one token."""
    spelling = {FIRST_SYMBOL + index: token for index, token in enumerate(tokens)}
    return [(left.translate(spelling), right.translate(spelling)) for left, right in merges]


def is_allowed(data: bytes, max_words: int) -> bool:
    """Whether a token is an ordinary one, or a supertoken of few enough words, whole graphemes and no ': '."""
    text = data.decode(errors="replace")
    count = len(text.split())
    if has_line_break(data) and (count > 1 or any(map(str.isalnum, text))):
        return False  # marks and blanks may end in a line break; words may not
    if count < 2:
        return True
    return count <= max_words and b": " not in data and whole_graphemes(data)


def has_line_break(data: bytes) -> bool:
    """Whether a token holds a line feed or a carriage return."""
    return b"\n" in data or b"\r" in data


def whole_graphemes(data: bytes) -> bool:
    """Whether bytes are text that begins and ends where a user-perceived character does."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    inside = _GRAPHEME.findall("x" + text + "x")  # a mark at the start joins the first x, a prefix the last one
    flags = sum("\U0001f1e6" <= char <= "\U0001f1ff" for char in inside[-2])
    return inside[0] == inside[-1] == "x" and not text.endswith("\u200d") and flags != 1


def reachable(model: Merges, certain: int = 0) -> Merges:
    """The model without the tokens that it never makes of their own bytes; the first `certain` merges are trusted."""
    while True:
        vocab = {token: index for index, token in enumerate(model.tokens)}
        bpe = models.BPE(vocab=vocab, merges=list(model.merges))
        made = dict.fromkeys(left + right for left, right in model.merges[certain:])
        lost = {token for token in made if len(bpe.tokenize(token)) != 1}
        if not lost:
            return model
        model = model.without(lost.__contains__)
