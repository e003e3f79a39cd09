"""Running text as both tokenizers cut it, with the place of every token in bytes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tokenadapt.plan import Problem
from tokenadapt.vocab.types import ByteVocab, Ids

log = logging.getLogger(__name__)
BATCH = 256  # lines encoded at once
LINE = re.compile(r"[^\n]+\n*|\n+")


@dataclass(frozen=True)
class Running:
    """One text: ids under each tokenizer, and where in the text's bytes each token begins and ends."""

    new: Ids  # (n,)
    new_edge: Ids  # (n + 1,)
    old: Ids  # (m,)
    old_edge: Ids  # (m + 1,)


def texts_of(problem: Problem, limit: int) -> Iterator[list[str]]:
    """The lines of the corpus, each with the ends of line after it, at most `limit`, in batches.

    So one odd character costs its line and not its document, which may be a whole book.
    """
    assert problem.corpus is not None
    with problem.progress.stage("read text", total=limit, unit="lines") as advance:
        stream = islice((line for text in problem.corpus() for line in LINE.findall(text)), limit)
        while batch := list(islice(stream, BATCH)):
            yield batch
            advance(len(batch))


def running(problem: Problem, limit: int) -> Iterator[Running]:
    """The corpus under both tokenizers. A text that either changes (lower case, say) is passed over and counted."""
    skipped = seen = 0
    for batch in texts_of(problem, limit):
        both = zip(batch, problem.target.encode(batch), problem.source.encode(batch), strict=True)
        for text, new, old in both:
            data = text.encode("utf-8", errors="surrogatepass")
            new_edge, old_edge = edges(problem.target, new, data), edges(problem.source, old, data)
            seen += 1
            if new_edge is None or old_edge is None:
                skipped += 1
                continue
            yield Running(np.array(new, np.int64), new_edge, np.array(old, np.int64), old_edge)
    if skipped:
        log.warning("%d of %d lines were passed over: a tokenizer does not spell them back exactly", skipped, seen)


def edges(vocab: ByteVocab, ids: list[int], data: bytes) -> Ids | None:
    """Where each token ends in `data`, after a 0; None where the tokens' bytes are not the text's.

    A space that the tokenizer puts before a text belongs to its first token and takes no room.
    """
    parts = [vocab.token_bytes[index] for index in ids]
    if any(part is None for part in parts):
        return None
    whole = b"".join(parts)  # type: ignore[arg-type]
    shift = 1 if whole == b" " + data and whole != data else 0
    if whole[shift:] != data:
        return None
    lengths = np.array([len(part or b"") for part in parts], dtype=np.int64)
    return np.asarray(np.concatenate([[0], np.cumsum(lengths) - shift]).clip(min=0))
