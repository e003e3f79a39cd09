"""A loaded tokenizer as bytes by id."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tokenadapt.vocab.alphabet import Alphabet, read_alphabet
from tokenadapt.vocab.load import LoadedTokenizer
from tokenadapt.vocab.roles import named_ids, read_roles
from tokenadapt.vocab.speller import make_speller
from tokenadapt.vocab.types import ByteVocab, Kind

log = logging.getLogger(__name__)


def byte_vocab(loaded: LoadedTokenizer) -> ByteVocab:
    """What each id stands for inside text, by rules read from the tokenizer's components.

    Tokens whose bytes cannot be known are of kind UNKNOWN, counted in a warning, and never guessed.
    """
    tokenizer = loaded.backend
    model = json.loads(tokenizer.model.__getstate__())
    alphabet = read_alphabet(tokenizer, model)
    text = _spellings(tokenizer)
    special = _special_ids(loaded, tokenizer, model)
    added = {index for index, token in tokenizer.get_added_tokens_decoder().items() if not token.special} - special
    token_bytes: list[bytes | None] = [None] * len(text)
    kind = np.full(len(text), Kind.GAP, dtype=np.uint8)
    for index, token in enumerate(text):
        if token is None:
            continue
        if index in special:
            kind[index] = Kind.SPECIAL
        elif index in added:
            token_bytes[index], kind[index] = _added_bytes(token, alphabet), Kind.ADDED
        else:
            token_bytes[index], kind[index] = alphabet.read(token)
    _demote_added(tokenizer, alphabet, text, kind, sorted(added))
    final = tuple(token_bytes)
    _warn_of_unknown(loaded, alphabet, text, kind)
    return ByteVocab(
        token_bytes=final,
        kind=kind,
        text=text,
        roles=read_roles(named_ids(loaded.fast), _named(text, special), _named(text, added)),
        encode=_encoder(tokenizer),
        spell=make_speller(tokenizer, alphabet, final, kind),
        merges=_merges(model),
        scores=_scores(model, len(text)),
        word_start=_word_starts(alphabet, text, kind),
        rule=alphabet.rule,
    )


def _spellings(tokenizer: Tokenizer) -> tuple[str | None, ...]:
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    text: list[str | None] = [None] * (max(vocab.values(), default=-1) + 1)
    for token, index in vocab.items():
        text[index] = token
    return tuple(text)


def _named(text: Sequence[str | None], ids: set[int]) -> dict[str, int]:
    named = ((text[index], index) for index in sorted(ids, reverse=True))
    return {name: index for name, index in named if name is not None}


def _special_ids(loaded: LoadedTokenizer, tokenizer: Tokenizer, model: dict[str, Any]) -> set[int]:
    """Added tokens marked special, those that the configuration names, and the model's unknown token."""
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special |= {index for index in loaded.fast.all_special_ids if isinstance(index, int)}
    named = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else model.get("unk_id")
    return special | ({named} if named is not None else set())


def _added_bytes(token: str, alphabet: Alphabet) -> bytes:
    """Added tokens are matched as plain text; only a space mark in them is a space."""
    if alphabet.mark and not alphabet.letters:
        token = token.replace(alphabet.mark, " ")
    return token.encode("utf-8", errors="surrogatepass")


def _demote_added(
    tokenizer: Tokenizer, alphabet: Alphabet, text: Sequence[str | None], kind: NDArray[np.uint8], added: list[int]
) -> None:
    """An added token that the model alone reads as itself is an ordinary one: Gemma's newlines and runs of spaces."""
    own = tokenizer.get_vocab(with_added_tokens=False)
    inside = [index for index in added if text[index] in own and not alphabet.letters]
    bare = Tokenizer(tokenizer.model)
    spelled = bare.encode_batch_fast([text[index] or "" for index in inside], add_special_tokens=False)
    for index, encoding in zip(inside, spelled, strict=True):
        if encoding.ids == [index]:
            kind[index] = Kind.ORDINARY


def _encoder(tokenizer: Tokenizer) -> Any:
    def encode(texts: Sequence[str]) -> list[list[int]]:
        """The tokenizer as users run it, without special tokens added; truncation and padding of a file are not run."""
        if tokenizer.truncation is not None:
            tokenizer.no_truncation()
        if tokenizer.padding is not None:
            tokenizer.no_padding()
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return encode


def _merges(model: dict[str, Any]) -> NDArray[np.int64] | None:
    """Pairs of ids in rank order; merges that name a token outside the vocabulary cannot be there."""
    if "merges" not in model:
        return None
    vocab = model["vocab"]
    pairs = (merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"])
    flat = list(map(vocab.__getitem__, chain.from_iterable(pairs)))
    return np.array(flat, dtype=np.int64).reshape(-1, 2)


def _scores(model: dict[str, Any], rows: int) -> NDArray[np.float64] | None:
    if model["type"] != "Unigram":
        return None
    scores = np.full(rows, -np.inf)
    scores[: len(model["vocab"])] = [score for _, score in model["vocab"]]
    return scores


def _word_starts(alphabet: Alphabet, text: Sequence[str | None], kind: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    if not alphabet.continuing:
        return None
    starts = [token is not None and alphabet.starts_word(token) for token in text]
    ordinary: NDArray[np.bool_] = kind == Kind.ORDINARY
    return np.array(starts, dtype=np.bool_) & ordinary


def _warn_of_unknown(
    loaded: LoadedTokenizer, alphabet: Alphabet, text: Sequence[str | None], kind: NDArray[np.uint8]
) -> None:
    unknown = np.flatnonzero(kind == Kind.UNKNOWN)
    if len(unknown):
        some = ", ".join(repr(text[index]) for index in unknown[:3])
        log.warning(
            "The bytes of %d tokens of %s cannot be known (%s): %s ...", len(unknown), loaded.spec, alphabet.rule, some
        )
