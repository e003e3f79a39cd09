"""What the source model makes of a token's pieces: its states after the last of them, kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.methods.halves import Runs
from tokenadapt.methods.ragged import Floats
from tokenadapt.plan import Problem
from tokenadapt.spaces.cache import VectorCache
from tokenadapt.spaces.own import begin_of, fingerprint
from tokenadapt.spaces.stored import input_key
from tokenadapt.threads import alone

KEPT: Final = 256  # numbers that are kept of a state, by depth
SAMPLE: Final = 2048  # strings from which the directions that are kept are found
LARGEST: Final = 6e4  # a state's entries are cut here: what float16 holds
FLUSH: Final = 4096  # strings that a kill may cost


class PieceStates:
    """States at some depths after the token that begins a text and a run of pieces, about their mean, shortened.

    What is kept of a state are its parts along the directions in which those of `sample` vary most. Without pieces, or
    without a model, there is nothing: zeros, or no column.
    """

    def __init__(self, problem: Problem, depths: Sequence[float], sample: Runs) -> None:
        self.depths, self.model = tuple(depths), problem.model
        self.directions: list[tuple[Floats, Floats]] = []
        if self.model is None or not self.depths:
            return
        self.begin = begin_of(problem.source)
        title = "states after pieces"
        identity = {"content": fingerprint(self.model, [*self.begin, 0]), "depths": self.depths, "begin": self.begin}
        self.cache = VectorCache(title, {"kind": title, **identity})
        full = np.flatnonzero(np.diff(sample.start))
        some = sample.take(full[:: max(1, len(full) // SAMPLE)])
        self.prepare(some)
        states = self._raw(some, 0, len(some.tokens)).reshape(len(some.tokens), len(self.depths), -1)
        self.directions = [_main_directions(states[:, slot]) for slot in range(len(self.depths))]

    @property
    def width(self) -> int:
        """Numbers a token."""
        return sum(directions.shape[1] for _, directions in self.directions)

    def prepare(self, runs: Runs) -> None:
        """Read what the cache lacks, in an order in which strings that begin alike stand together."""
        if self.model is None or not self.depths:
            return
        strings = {input_key(string): string for string in self._strings(runs, 0, len(runs.tokens)) if string}
        absent = sorted(item[::-1] for item in strings.items() if item[0] not in self.cache)
        if not absent:
            return
        self.cache.require_writable()
        keys: list[bytes] = []
        parts: list[NDArray[np.float32]] = []
        for index, states in self.model.states_in_parts([string for string, _ in absent], self.depths):
            keys += [absent[at][1] for at in index]
            parts.append(states.reshape(len(index), -1).clip(-LARGEST, LARGEST))
            if len(keys) >= FLUSH:
                self.cache.add(keys, np.concatenate(parts))
                keys, parts = [], []
        if keys:
            self.cache.add(keys, np.concatenate(parts))

    def rows(self, runs: Runs, first: int, last: int) -> Floats:
        """The shortened states of runs first..last, which `prepare` has seen: (last - first, width)."""
        if not self.directions:
            return np.zeros((last - first, 0))
        states = self._raw(runs, first, last).reshape(last - first, len(self.depths), -1)
        parts = [(states[:, slot] - mean) @ along for slot, (mean, along) in enumerate(self.directions)]
        found = np.concatenate(parts, axis=1)
        found[np.diff(runs.start[first : last + 1]) == 0] = 0
        return found

    def _raw(self, runs: Runs, first: int, last: int) -> Floats:
        keys = [input_key(string) if string else b"" for string in self._strings(runs, first, last)]
        out = np.zeros((last - first, self.cache.width))
        full = [place for place, key in enumerate(keys) if key]
        if full:
            out[full] = self.cache.rows([keys[place] for place in full])
        return out

    def _strings(self, runs: Runs, first: int, last: int) -> list[tuple[int, ...]]:
        cut = [runs.piece[runs.start[at] : runs.start[at + 1]].tolist() for at in range(first, last)]
        return [(*self.begin, *pieces) if pieces else () for pieces in cut]


def _main_directions(states: Floats) -> tuple[Floats, Floats]:
    """Mean (D,) and the directions of most variance (D, k), the greatest entry of each positive."""
    mean = states.mean(axis=0)
    spread = np.cov(states - mean, rowvar=False)
    with alone():
        along = torch.linalg.eigh(torch.from_numpy(np.atleast_2d(spread)))[1].numpy()[:, ::-1][:, :KEPT]
    top = np.abs(along).argmax(axis=0)
    return mean, along * np.sign(along[top, np.arange(along.shape[1])])
