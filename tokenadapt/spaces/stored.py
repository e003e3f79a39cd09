"""Inputs to vectors through the cache: what is absent is encoded once, in even batches, shared among ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.cache import VectorCache, content_key
from tokenadapt.spaces.options import Matrix, unit
from tokenadapt.spaces.ranks import Ranks, ranks

Input = bytes | tuple[int, ...]  # a text in UTF-8, or ids of the encoder's tokenizer
Encode = Callable[[list[Input]], Matrix]
FLUSH_ROWS: Final = 4096  # finished vectors that a kill may cost
FLUSH_SECONDS: Final = 15.0


def make_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in batches of about one length, longest first, whose padded size is at most `budget`.

    One that is longer than the budget is a batch of its own. The order is that of (length, position), so that batches
    do not depend on how work is shared.
    """
    out: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if batch and longest * (len(batch) + 1) > budget:
            out.append(batch)
            batch = []
        if not batch:
            longest = max(lengths[at], 1)
        batch.append(at)
    return [*out, batch] if batch else out


class StoredVectors:
    """Vectors of inputs by content; `encode` makes those of one batch, (n, d), of any length."""

    def __init__(
        self, cache: VectorCache, encode: Encode, batch_tokens: int, *, name: str, progress: Progress = SILENT
    ) -> None:
        self.cache, self.encode, self.budget = cache, encode, batch_tokens
        self.name, self.progress = name, progress

    def prefetch(self, inputs: Sequence[Input]) -> None:
        """Encode what the cache lacks; in a run of several ranks, all of them must come here together."""
        group = ranks()
        wanted = {input_key(entry): entry for entry in inputs}
        absent: list[Input] = group.same([entry for key, entry in wanted.items() if key not in self.cache])
        if not absent:
            return
        self.cache.require_writable()
        self._encode(absent, group)
        if group.world > 1:
            self._exchange(absent, group)

    def rows(self, inputs: Sequence[Input]) -> Matrix:
        """Unit vectors, encoded now where they are not stored: (len(inputs), d)."""
        keys = [input_key(entry) for entry in inputs]
        absent = {key: entry for key, entry in zip(keys, inputs, strict=True) if key not in self.cache}
        if absent:
            self.cache.require_writable()
            self._encode(list(absent.values()), Ranks())
        return unit(self.cache.rows(keys))

    def _encode(self, absent: list[Input], group: Ranks) -> None:
        """Encode this rank's batches, a segment now and then."""
        batches = make_batches([len(entry) for entry in absent], self.budget)[group.rank :: group.world]
        total = sum(map(len, batches))
        keys: list[bytes] = []
        parts: list[Matrix] = []
        last = time.monotonic()
        with self.progress.stage(f"encode with {self.name}", total=total, unit="strings") as advance:
            for batch in batches:
                entries = [absent[at] for at in batch]
                parts.append(unit(self.encode(entries)))
                keys.extend(map(input_key, entries))
                advance(len(batch))
                if len(keys) >= FLUSH_ROWS or time.monotonic() - last > FLUSH_SECONDS:
                    self.cache.add(keys, np.concatenate(parts))
                    keys, parts, last = [], [], time.monotonic()
            if keys:
                self.cache.add(keys, np.concatenate(parts))

    def _exchange(self, absent: list[Input], group: Ranks) -> None:
        """Wait for all, read what they stored, and send by message what no shared file system brought."""
        group.gather(None)
        self.cache.refresh()
        lacking = set().union(*group.gather({key for key in map(input_key, absent) if key not in self.cache}))
        if not lacking:
            return
        mine = sorted(key for key in lacking if key in self.cache)
        for keys, vectors in group.gather((mine, self.cache.rows(mine).astype(np.float16))):
            if len(keys):
                self.cache.hold(keys, vectors)


def input_key(entry: Input) -> bytes:
    """Texts and ids never meet in one cache, so their bytes may not collide but by content."""
    return content_key(entry if isinstance(entry, bytes) else np.asarray(entry, dtype="<i4").tobytes())
