"""Snippets for new tokens that the data hold too seldom: from the rest of a corpus, else written by the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tokenadapt.calibration.examples import Side, Text
from tokenadapt.calibration.own_texts import as_text, begin, writer
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.writing import Manner
from tokenadapt.progress import SILENT, Progress
from tokenadapt.vocab import segment
from tokenadapt.vocab.types import Ids

_AFTER: Final = 24  # tokens that the source writes after a new token's pieces
_AROUND: Final = 160  # characters of a snippet on either side of a token, cut at spaces
_AT_ONCE: Final = 64  # texts that are encoded together


@dataclass
class Need:
    """How often each new token still wants to be seen: (V,), 0 for all others."""

    left: Ids

    @staticmethod
    def of(pair: Pair, texts: Iterable[Text], reader: Side, wanted: int) -> Need:
        """After what some texts hold already."""
        left = np.zeros(pair.checkpoint.rows, dtype=np.int64)
        left[pair.alignment.missing] = wanted
        need = Need(left)
        batch: list[str] = []
        for text in texts:
            batch.append(text.text)
            if len(batch) == _AT_ONCE:
                need.seen(reader.encoder.encode(batch).ids)
                batch = []
        if batch:
            need.seen(reader.encoder.encode(batch).ids)
        return need

    def seen(self, ids: Ids) -> None:
        """Note that tokens occurred."""
        np.subtract.at(self.left, ids, 1)
        np.maximum(self.left, 0, out=self.left)

    @property
    def tokens(self) -> Ids:
        """Tokens that want more, ascending."""
        return np.flatnonzero(self.left)


def snippets(texts: Iterable[Text], need: Need, reader: Side) -> list[Text]:
    """Pieces of `texts` around tokens that are needed, until none is."""
    found: list[Text] = []
    for text in texts:
        if not len(need.tokens):
            break
        encoded = reader.encoder.encode([text.text])
        wanted = np.flatnonzero(need.left[encoded.ids] > 0)
        if not len(wanted):
            continue
        raw, ends = text.text.encode(), np.cumsum(encoded.nbytes)
        reached = 0
        for place in wanted.tolist():
            if need.left[encoded.ids[place]] <= 0 or ends[place] <= reached:
                continue
            low, high = max(reached, int(ends[place]) - _AROUND), int(ends[place]) + _AROUND
            piece = _whole_words(raw, low, high)
            need.seen(reader.encoder.encode([piece]).ids)
            found.append(Text(piece, f"{text.name} around byte {int(ends[place])}"))
            reached = high
    return found


def _whole_words(raw: bytes, low: int, high: int) -> str:
    """The stretch, widened to spaces and cut to whole characters."""
    begin_at = raw.rfind(b" ", 0, low) if low else 0
    stop = raw.find(b" ", high)
    return raw[max(0, begin_at) : stop if stop >= 0 else len(raw)].decode(errors="ignore")


def written(pair: Pair, teacher: Speaker, need: Need, seed: int, progress: Progress = SILENT) -> list[Text]:
    """Texts that the source goes on with after the pieces of each token that is still needed, as often as it is."""
    cut = segment(pair.teacher, pair.student, pair.alignment)
    row = {int(token): index for index, token in enumerate(pair.alignment.missing)}
    start = begin(pair)
    prompts: list[Sequence[int]] = []
    for token in need.tokens.tolist():
        index = row.get(token)
        pieces = cut.piece[cut.start[index] : cut.start[index + 1]].tolist() if index is not None else []
        if pieces:
            prompts += [[*start, *pieces]] * int(need.left[token])
    if not prompts:
        return []
    longest = min(teacher.body.positions, max(map(len, prompts)) + _AFTER)
    manner = Manner(0, longest, 1.0, seed)
    ids = writer(pair, teacher).once([prompt for prompt in prompts if len(prompt) < longest], manner, progress)
    return [Text(text, f"written {number + 1}") for number, text in enumerate(as_text(pair, ids)) if text]
