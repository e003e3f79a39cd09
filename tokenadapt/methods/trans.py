"""Trans-tokenization: rows of translations."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from pathlib import Path

import numpy as np

from tokenadapt.errors import RequestError
from tokenadapt.methods.options import NonNegative
from tokenadapt.methods.translations import Pair, count_links, read_table
from tokenadapt.plan import Plan, Problem
from tokenadapt.vocab.types import ByteVocab

Counts = dict[int, Counter[int]]  # target id -> old id -> weight
BATCH = 8192  # word pairs spelled at once
SHARE, SHARE_AT_WORD = 1000.0, 2000.0  # weight of one relative's translations; of those that begin a word


def trans(
    problem: Problem, *, table: Path | None = None, parallel: Path | None = None, min_count: NonNegative = 10.0
) -> Plan:
    """Old rows weighted by how often their words translate the token's (Remy et al., arXiv:2408.04303).

    `table` holds source word, target word and weight a line (or fast_align's four columns); `parallel` a sentence and
    its translation a line, which eflomal aligns (pip install 'tokenadapt[eflomal]'); pairs of words that occur fewer
    than `min_count` times are dropped. A word pair's weight goes half to all pairs of its tokens, half to those at the
    same place. A token that no pair holds takes the translations of the tokens that begin with it and of the longest
    ones inside it, each set alike, double where an old token begins a word. Numbers take their first old piece. What
    is then without a translation is left to the fallback (published: the unknown token's row).
    """
    if (table is None) == (parallel is None):
        raise RequestError(
            "The method trans takes a translation table or a parallel corpus: one of the two.",
            "Write trans:table=PATH, or trans:parallel=PATH.",
        )
    with problem.progress.stage(f"read {(table or parallel).name}"):  # type: ignore[union-attr]
        words = read_table(table, min_count) if table else count_links(parallel, min_count)  # type: ignore[arg-type]
    counts = token_counts(problem, words)
    _add_shared(problem, counts)
    _add_relatives(problem, counts)
    return _plan(problem, counts)


def token_counts(problem: Problem, words: Counter[Pair]) -> Counts:
    """Weights of token pairs: each word pair's tokens, spelled by the tokenizers' own models."""
    pairs = list(words)
    counts: Counts = {}
    with problem.progress.stage("share word pairs among tokens", total=len(pairs), unit="pairs") as advance:
        for first in range(0, len(pairs), BATCH):
            batch = pairs[first : first + BATCH]
            old = problem.source.spell([source.encode() for source, _ in batch])
            new = problem.target.spell([target.encode() for _, target in batch])
            for pair, left, right in zip(batch, old, new, strict=True):
                if not left or not right:
                    continue
                for i, j, share in shares(len(left), len(right)):
                    counts.setdefault(right[j], Counter())[left[i]] += words[pair] * share  # type: ignore[assignment]
            advance(len(batch))
    return counts


def shares(old: int, new: int) -> list[tuple[int, int, float]]:
    """Old place, new place and weight: half of it all with all, half by the overlap of the places; 1 for each new."""
    found = []
    for j in range(new):
        for i in range(old):
            overlap = max(0.0, min((i + 1) / old, (j + 1) / new) - max(i / old, j / new)) * new
            found.append((i, j, 0.5 / old + 0.5 * overlap))
    return found


def _add_shared(problem: Problem, counts: Counts) -> None:
    """Copied tokens translate themselves; numbers of up to four digits, their first old piece."""
    copied = np.flatnonzero(problem.alignment.source_id >= 0)
    for index, old in zip(copied.tolist(), problem.alignment.source_id[copied].tolist(), strict=True):
        counts.setdefault(index, Counter())[old] += 1
    cut = problem.segmentation
    for j, index in enumerate(problem.alignment.missing.tolist()):
        text = (problem.target.token_bytes[index] or b"").strip()
        if text.isdigit() and len(text) <= 4 and cut.start[j + 1] > cut.start[j]:
            counts.setdefault(index, Counter())[int(cut.piece[cut.start[j]])] += 1


def _add_relatives(problem: Problem, counts: Counts) -> None:
    """Translations of relatives, for missing tokens that have none of their own."""
    known = {data: index for index in sorted(counts) if (data := problem.target.token_bytes[index])}
    ordered = sorted(known)
    fresh: Counts = {}
    missing = problem.alignment.missing.tolist()
    with problem.progress.stage("look for relatives", total=len(missing), unit="tokens") as advance:
        for index in missing:
            advance(1)
            data = problem.target.token_bytes[index]
            if index in counts or not data:
                continue
            relatives = [known[other] for other in (*longer(data, ordered), *inside(data, known))]
            if relatives:
                fresh[index] = _blend(problem.source, [counts[other] for other in relatives])
    counts.update(fresh)


def longer(data: bytes, ordered: list[bytes]) -> list[bytes]:
    """The tokens of a sorted list that begin with `data`."""
    first = place = bisect_left(ordered, data)
    while place < len(ordered) and ordered[place].startswith(data):
        place += 1
    return ordered[first:place]


def inside(data: bytes, known: dict[bytes, int]) -> list[bytes]:
    """The known tokens within `data` that lie in no longer one that was taken."""
    taken: list[bytes] = []
    for size in range(len(data) - 1, 0, -1):
        for begin in range(len(data) - size + 1):
            part = data[begin : begin + size]
            if part in known and not any(part in other for other in taken):
                taken.append(part)
    return taken


def _blend(source: ByteVocab, parts: list[Counter[int]]) -> Counter[int]:
    """Each set of translations brought to one sum, then added."""
    out: Counter[int] = Counter()
    for part in parts:
        total = sum(part.values())
        for old, weight in part.items():
            at_word = (source.token_bytes[old] or b"").startswith(b" ")
            out[old] += (SHARE_AT_WORD if at_word else SHARE) * weight / total  # type: ignore[assignment]
    return out


def _plan(problem: Problem, counts: Counts) -> Plan:
    start, ids, weights = [0], [], []
    for index in problem.alignment.missing.tolist():
        found = {old: weight for old, weight in counts.get(index, {}).items() if old < problem.table.shape[0]}
        total = sum(found.values())
        for old in sorted(found) if total > 0 else ():
            ids.append(old)
            weights.append(found[old] / total)
        start.append(len(ids))
    return Plan(np.array(start, np.int64), np.array(ids, np.int64), np.array(weights, np.float32))
