"""The documents of a run: kept once, on disk where they are many, and measured once for every model."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError

IN_MEMORY: Final = 256 << 20  # bytes of text before documents go to a temporary file
POOL_BYTES: Final = 4 << 20  # text that is encoded and sorted by length at a time
_WORD: Final = re.compile(r"\S+")


class Labelled(Protocol):
    """A document as the corpus reader gives it."""

    @property
    def text(self) -> str:
        """The document itself."""
        ...

    @property
    def label(self) -> str:
        """Its subset."""
        ...


class Store:
    """Texts in a temporary file that stays in memory while it is small."""

    def __init__(self) -> None:
        self.file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  # lives as long as the texts
        self.start = [0]

    def append(self, raw: bytes) -> None:
        """Keep one more text."""
        self.file.seek(self.start[-1])
        self.file.write(raw)
        self.start.append(self.start[-1] + len(raw))

    def get(self, index: int) -> bytes:
        """The text of one document."""
        self.file.seek(self.start[index])
        return self.file.read(self.start[index + 1] - self.start[index])


@dataclass(frozen=True)
class Texts:
    """All documents, and what is known of them before any model reads them; built by `keep`."""

    label: tuple[str, ...]
    nbytes: NDArray[np.int64]  # (documents,)
    words: NDArray[np.int64]  # (documents,) runs of non-space
    fingerprint: str  # of all labels and texts, in order
    store: Store

    def __len__(self) -> int:
        return len(self.label)

    @property
    def labels(self) -> tuple[str, ...]:
        """The subsets, in order of first appearance."""
        return tuple(dict.fromkeys(self.label))

    def of(self, label: str | None) -> NDArray[np.int64]:
        """Numbers of the documents of a subset; None: of all."""
        if label is None:
            return np.arange(len(self))
        return np.flatnonzero(np.array([one == label for one in self.label], dtype=bool))

    def text(self, index: int) -> str:
        """One document."""
        return self.store.get(index).decode()

    def pools(self) -> Iterator[range]:
        """Stretches of documents of about `POOL_BYTES`, the same for every model and process."""
        low, held = 0, 0
        for index, size in enumerate(self.nbytes.tolist()):
            if held and held + size > POOL_BYTES:
                yield range(low, index)
                low, held = index, 0
            held += size
        if low < len(self):
            yield range(low, len(self))


def keep(documents: Iterable[Labelled]) -> Texts:
    """Read all documents once; RequestError where they hold no text at all."""
    store, digest = Store(), hashlib.sha256()
    labels, sizes, words = [], [], []
    for document in documents:
        try:
            raw = document.text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                f"A document of {document.label!r} holds half of a surrogate pair, which is no text.",
                "Mend it, or leave it out with --on-error skip.",
            ) from error
        store.append(raw)
        digest.update(f"{document.label}\0{len(raw)}\0".encode() + raw)
        labels.append(document.label)
        sizes.append(len(raw))
        words.append(sum(1 for _ in _WORD.finditer(document.text)))
    if not sum(sizes):
        raise RequestError("The corpus holds no text to score.", "Check the files, the column and the limits.")
    found = np.array(sizes, dtype=np.int64), np.array(words, dtype=np.int64)
    return Texts(tuple(labels), *found, digest.hexdigest(), store)
