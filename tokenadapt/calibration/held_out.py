"""Held-out bits per byte, by the code that `eval-ppl` runs: the same windows, begin tokens and bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tokenadapt.calibration.examples import Side
from tokenadapt.calibration.group import Group
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.evaluation.head import Scorer
from tokenadapt.evaluation.options import ScoreOptions
from tokenadapt.evaluation.score import Scores, score_encoded


class HeldOut:
    """Texts, encoded once for one tokenizer, to be scored again and again."""

    def __init__(self, texts: Sequence[str], side: Side, bos: str) -> None:
        self.encoder, self.options = side.encoder, ScoreOptions(bos=bos)
        self.encoded = side.encoder.encode(list(texts))

    @property
    def bytes(self) -> int:
        """How much text there is."""
        return int(self.encoded.size.sum())

    def score(self, speaker: Speaker, group: Group = Group()) -> float:  # noqa: B008  # frozen
        """Bits per byte, computed together with the other processes."""
        share, bits = (group.rank, group.size), np.zeros(len(self.encoded.ids))
        scores = score_encoded(Scorer(speaker), self.encoder, self.encoded, self.options, share=share, into=bits)
        return Scores(self.encoded, group.sum(scores.bits)).bits_per_byte
