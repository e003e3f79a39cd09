"""Where a swap's bits are lost: (a) reading target tokens as their pieces, (b) the new output rows at these states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tokenadapt.evaluation import Encoded
from tokenadapt.setting import Setting


class Where:
    """One source model and one target tokenizer; texts are cut into windows of `window` target tokens."""

    def __init__(self, setting: Setting, old: Any, window: int) -> None:
        self.setting, self.old, self.window = setting, old, window
        self._kept: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    @torch.inference_mode()
    def forced(self, encoded: Encoded, nbytes: int) -> float:
        """(a): the source's bits per byte for each token as its pieces, first tokens of a window left out as in (b)."""
        head = self.old.get_output_embeddings().weight
        total = 0.0
        for ids in self._windows(encoded):
            pieces = [self._pieces(index) for index in ids]
            flat = torch.tensor([piece for run in pieces for piece in run])
            states = self.old.base_model(input_ids=flat[None]).last_hidden_state[0]
            skip = len(pieces[0])
            logs = torch.log_softmax(states[skip - 1 : -1] @ head.T, 1)
            total -= float(logs.gather(1, flat[skip:, None]).double().sum())
        return total / np.log(2) / nbytes

    @torch.inference_mode()
    def perfect(self, head: torch.Tensor, kind: str, encoded: Encoded, nbytes: int) -> float:
        """(b): the source's own states after each target token's pieces, under a new output table."""
        total = 0.0
        if kind not in self._kept:
            self._kept[kind] = [self._read_one(ids) for ids in self._windows(encoded)]
        for states, ids in self._kept[kind]:
            for first in range(0, len(ids), 256):
                logits = states[first : first + 256] @ head.T
                total -= float(torch.log_softmax(logits, 1).gather(1, ids[first : first + 256, None]).double().sum())
        return total / np.log(2) / nbytes

    def _windows(self, encoded: Encoded) -> list[list[int]]:
        runs, step = [], self.window
        for low, high in zip(encoded.start[:-1].tolist(), encoded.start[1:].tolist(), strict=True):
            runs += [encoded.ids[at : min(at + step, high)].tolist() for at in range(low, high, step)]
        return [run for run in runs if len(run) > 1]

    def _pieces(self, index: int) -> list[int]:
        alignment, cut = self.setting.alignment, self.setting.segmentation
        if alignment.source_id[index] >= 0:
            return [int(alignment.source_id[index])]
        at = int(np.searchsorted(alignment.missing, index))
        return cut.piece[cut.start[at] : cut.start[at + 1]].tolist() or [0]

    def _read_one(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """States before each target token but the first, and the tokens' ids."""
        pieces = [self._pieces(index) for index in ids]
        flat = torch.tensor([piece for run in pieces for piece in run])
        states = self.old.base_model(input_ids=flat[None]).last_hidden_state[0]
        ends = torch.tensor(np.cumsum([len(run) for run in pieces]) - 1)
        return states[ends[:-1]], torch.tensor(ids[1:])
