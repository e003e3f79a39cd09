"""Lines that training does not see, for the report: a few contiguous ones out of many documents, by the seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from tokenadapt.documents import Document

SHARE: Final = 0.01  # of the corpus, until the budget is used up


class Holdout:
    """Takes about one per cent of the lines apart, at most `budget` bytes; `texts` is what it took."""

    def __init__(self, budget: int, seed: int) -> None:
        self.left, self.texts = budget, list[str]()
        self.draw = random.Random(f"holdout:{seed}")  # noqa: S311  # a seeded sample, no secret

    def apart(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The documents without the lines held out."""
        for document in documents:
            rest = self._take(document.text) if self.left > 0 else document.text
            if rest:
                yield document if rest is document.text else replace(document, text=rest)

    def _take(self, text: str) -> str:
        if len(text) < 1000:  # short documents whole or not at all
            if self.draw.random() >= SHARE:
                return text
            self._keep(text)
            return ""
        wanted = min(4000, self.left)  # characters at a place, so that the lines have context
        if self.draw.random() >= SHARE * len(text) / wanted:
            return text
        start = text.find("\n", self.draw.randrange(len(text))) + 1
        end = text.find("\n", start + wanted) + 1 or len(text)
        if start == 0 or end - start > 3 * wanted:
            return text
        self._keep(text[start:end])
        return text[:start] + text[end:]

    def _keep(self, text: str) -> None:
        if text.strip():
            self.texts.append(text)
            self.left -= len(text.encode())
