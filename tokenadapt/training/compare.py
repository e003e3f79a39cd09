"""Tokenizers side by side on the same text: how dense, how lossless, how fast, and how much they share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenadapt.corpus import Document
from tokenadapt.vocab import LoadedTokenizer, byte_vocab
from tokenadapt.vocab.components import steps
from tokenadapt.vocab.types import ByteVocab, Kind

ORDINARY: Final = (Kind.ORDINARY, Kind.BYTE)


@dataclass(frozen=True)
class Subject:
    """A tokenizer to be measured, with its bytes by id."""

    name: str
    backend: Tokenizer
    vocab: ByteVocab

    @classmethod
    def of(cls, loaded: LoadedTokenizer, name: str = "") -> Subject:
        """From a loaded tokenizer."""
        return cls(name or loaded.spec, loaded.backend, byte_vocab(loaded))


@dataclass(frozen=True)
class TextFigures:
    """One kind of text under one tokenizer."""

    label: str
    bytes: int
    words: int  # runs between blanks
    tokens: int
    documents: int
    lossless: int  # documents that decode to exactly what they were

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with the two ratios."""
        return {
            "label": self.label, "bytes": self.bytes, "words": self.words, "tokens": self.tokens,
            "bytes_per_token": self.bytes / max(1, self.tokens), "tokens_per_word": self.tokens / max(1, self.words),
            "documents": self.documents, "lossless_documents": self.lossless,
        }  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """One tokenizer on all text. Throughput is in bytes per second of one core's own time."""

    name: str
    vocabulary: int
    texts: tuple[TextFigures, ...]  # by label; the last one is all text together
    used: int  # ids that the text uses
    words_per_token: dict[int, int]  # words in a token -> occurrences in the text
    unreachable: tuple[int, ...]  # ids that no text can give
    unknown: int  # unknown tokens that the text gave: characters that are lost
    encode_speed: float
    decode_speed: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name, "vocabulary": self.vocabulary, "used": self.used,
            "used_share": self.used / max(1, self.vocabulary),
            "texts": [text.as_dict() for text in self.texts],
            "words_per_token": {str(words): count for words, count in sorted(self.words_per_token.items())},
            "unreachable": len(self.unreachable), "unknown_tokens": self.unknown,
            "encode_bytes_per_second": self.encode_speed, "decode_bytes_per_second": self.decode_speed,
        }  # fmt: skip


def measure(subject: Subject, documents: Sequence[Document]) -> Figures:
    """All figures of one tokenizer on the given documents."""
    texts = [document.text for document in documents]
    backend = subject.backend
    backend.no_truncation()
    backend.no_padding()
    began = time.process_time()
    ids = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    encoded = time.process_time()
    back = [backend.decode(row, skip_special_tokens=False) for row in ids]
    decoded = time.process_time()
    size = sum(len(text.encode()) for text in texts)
    labels = dict.fromkeys(document.label for document in documents)
    groups = [(label, [at for at, d in enumerate(documents) if d.label == label]) for label in labels]
    if len(groups) != 1:
        groups.append(("all", list(range(len(documents)))))
    rows = tuple(_text_figures(label, at, texts, ids, back) for label, at in groups)
    counts = np.bincount(np.concatenate([np.asarray(row, dtype=np.int64) for row in ids]), minlength=len(subject.vocab))
    words = words_by_id(subject.vocab)
    per_token = {int(n): int(counts[words == n].sum()) for n in np.unique(words) if counts[words == n].any()}
    live = int(np.count_nonzero(subject.vocab.kind != Kind.GAP))
    return Figures(
        subject.name, live, rows, int((counts > 0).sum()), per_token, unreachable(subject),
        _unknown(backend, counts), size / max(1e-9, encoded - began), size / max(1e-9, decoded - encoded),
    )  # fmt: skip


def _text_figures(
    label: str, at: Sequence[int], texts: Sequence[str], ids: Sequence[Sequence[int]], back: Sequence[str]
) -> TextFigures:
    return TextFigures(
        label, sum(len(texts[i].encode()) for i in at), sum(len(texts[i].split()) for i in at),
        sum(len(ids[i]) for i in at), len(at), sum(texts[i] == back[i] for i in at),
    )  # fmt: skip


def _unknown(backend: Tokenizer, counts: NDArray[np.int64]) -> int:
    """How often the model gave up: only models with an unknown token of their own do."""
    name = getattr(backend.model, "unk_token", None)
    index = backend.token_to_id(name) if name else None
    return 0 if index is None else int(counts[index])


def words_by_id(vocab: ByteVocab) -> NDArray[np.int64]:
    """How many words each token holds, wholly or in part; 0 for white space and special tokens."""
    return np.asarray([len((data or b"").decode(errors="replace").split()) for data in vocab.token_bytes])


def unreachable(subject: Subject) -> tuple[int, ...]:
    """Ordinary tokens that the tokenizer never makes of their own bytes, or that its pre-tokeniser always cuts.

    WordPiece is not asked: which of its tokens a text reaches depends on the word around them.
    """
    vocab = subject.vocab
    if vocab.word_start is not None:
        return ()
    ids = [index for index, kind in enumerate(vocab.kind) if kind == Kind.ORDINARY and vocab.token_bytes[index]]
    spelled = vocab.spell([vocab.token_bytes[index] or b"" for index in ids])
    cuts = {part["type"] for part in steps(subject.backend, "pre_tokenizer")}
    splitter = subject.backend.pre_tokenizer if "ByteLevel" in cuts else None
    lost = []
    for index, pieces in zip(ids, spelled, strict=True):
        if pieces != [index] or (splitter is not None and _is_cut(splitter, vocab.token_bytes[index] or b"")):
            lost.append(index)
    return tuple(lost)


def _is_cut(splitter: Any, data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False  # a part of a character: no text of its own
    return len(splitter.pre_tokenize_str(text)) > 1


def overlap(one: Subject, other: Subject) -> int:
    """How many byte strings are tokens of both, special tokens aside."""

    def strings(subject: Subject) -> set[bytes]:
        pairs = zip(subject.vocab.token_bytes, subject.vocab.kind, strict=True)
        return {data for data, kind in pairs if data and kind in ORDINARY}

    return len(strings(one) & strings(other))


def borders(subject: Subject, text: str) -> list[str]:
    """A text cut where its tokens end; a cut inside a character is moved behind it."""
    encoding = subject.backend.encode(text, add_special_tokens=False)
    ends = sorted({end for _, end in encoding.offsets} | {len(text)})
    starts = [0, *ends[:-1]]
    return [text[start:end] for start, end in zip(starts, ends, strict=True) if end > start]


def supertoken_value(subject: Subject, documents: Sequence[Document], top: int = 20) -> list[tuple[str, int, int]]:
    """The supertokens that save most: text, occurrences, tokens saved against one token a word."""
    words = words_by_id(subject.vocab)
    counts: Counter[int] = Counter()
    for document in documents:
        counts.update(i for i in subject.backend.encode(document.text, add_special_tokens=False).ids if words[i] > 1)
    saved = {index: count * (int(words[index]) - 1) for index, count in counts.items()}
    best = sorted(saved, key=lambda index: (-saved[index], index))[:top]
    return [((subject.vocab.token_bytes[i] or b"").decode(errors="replace"), counts[i], saved[i]) for i in best]
