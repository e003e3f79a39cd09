"""Tokenizer -> bytes -> alignment -> pieces. Knows tokenizers, knows no model."""

from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer
from tokenadapt.vocab.read import byte_vocab

__all__ = ["LoadedTokenizer", "byte_vocab", "load_tokenizer"]
