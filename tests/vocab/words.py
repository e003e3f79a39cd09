"""Hand-made vocabularies, in which every answer can be worked out on paper."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.vocab.conftest import loaded
from tokenadapt.vocab import byte_vocab
from tokenadapt.vocab.letters import to_letters
from tokenadapt.vocab.types import ByteVocab


def letters_vocab(
    tokens: list[bytes],
    merges: list[tuple[bytes, bytes]] | None = None,
    *,
    special: Mapping[str, str] | None = None,
    more: tuple[str, ...] = (),
    added: tuple[str, ...] = (),
    digits: bool = False,
) -> ByteVocab:
    """A byte-level BPE of these tokens in this order; no merges: only single tokens are read.

    special: role (bos_token, ...) -> name; more: special tokens without a role; added: tokens that are not special.
    """
    spelled = [(to_letters(left), to_letters(right)) for left, right in merges or []]
    backend = Tokenizer(models.BPE({to_letters(token): index for index, token in enumerate(tokens)}, spelled))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    roles = dict(special or {})
    backend.add_special_tokens(list(dict.fromkeys([*roles.values(), *more])))
    backend.add_tokens([AddedToken(name, normalized=False) for name in added])
    return byte_vocab(loaded(PreTrainedTokenizerFast(tokenizer_object=backend, **roles)))


def named(vocab: ByteVocab, ids) -> list[str | None]:
    """Spellings of ids; None for -1."""
    return [vocab.text[index] if index >= 0 else None for index in ids]
