"""Tokenizer -> bytes -> alignment -> pieces. Knows tokenizers, knows no model."""

from tokenadapt.vocab.align import align, id_map
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer
from tokenadapt.vocab.maps import parse_maps
from tokenadapt.vocab.read import byte_vocab
from tokenadapt.vocab.segment import segment

__all__ = ["LoadedTokenizer", "align", "byte_vocab", "id_map", "load_tokenizer", "parse_maps", "segment"]
