"""Tokenizer -> bytes -> alignment -> pieces. Knows tokenizers, knows no model."""

from tokenadapt.vocab.align import align, id_map
from tokenadapt.vocab.digits import DigitPolicy, digit_policy, digits_differ
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer
from tokenadapt.vocab.maps import parse_maps
from tokenadapt.vocab.read import byte_vocab
from tokenadapt.vocab.segment import segment

__all__ = [
    "DigitPolicy",
    "LoadedTokenizer",
    "align",
    "byte_vocab",
    "digit_policy",
    "digits_differ",
    "id_map",
    "load_tokenizer",
    "parse_maps",
    "segment",
]
