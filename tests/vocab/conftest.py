from __future__ import annotations

from pathlib import Path

import pytest

from tokenadapt.vocab import LoadedTokenizer, byte_vocab, load_tokenizer


def loaded(fast) -> LoadedTokenizer:
    """A tokenizer made in memory, as if it had been loaded."""
    return LoadedTokenizer("memory", Path("memory"), fast)


@pytest.fixture(scope="session")
def vocabularies(tokenizers):
    """ByteVocab of every tiny tokenizer by family."""
    return {family: byte_vocab(loaded(fast)) for family, fast in tokenizers.items()}


@pytest.fixture(scope="session")
def real_vocab(bench):
    """A function from the name of a real tokenizer to its ByteVocab; each is loaded once."""
    known = {}

    def get(name: str):
        if name not in known:
            known[name] = byte_vocab(load_tokenizer(str(bench / name)))
        return known[name]

    return get
