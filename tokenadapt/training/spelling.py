"""Bytes as the letters of byte-level tokenizers, and back: every byte is one printable character.

The letters hold no white space, so a blank can stand between spelled words wherever a trainer wants one text.
"""

from __future__ import annotations

from typing import Final

_PRINTABLE: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # GPT-2's choice
_OTHERS: Final = tuple(byte for byte in range(256) if byte not in _PRINTABLE)
LETTER: Final[dict[int, str]] = {
    **{byte: chr(byte) for byte in _PRINTABLE},
    **{byte: chr(0x100 + index) for index, byte in enumerate(_OTHERS)},
}
BYTE: Final[dict[str, int]] = {letter: byte for byte, letter in LETTER.items()}
ALPHABET: Final = tuple(sorted(BYTE))  # the trainers' order: by code point


def spell(data: bytes) -> str:
    """Bytes to byte-level letters: b' the' is 'Ġthe'."""
    return data.decode("latin-1").translate(LETTER)


def unspell(letters: str) -> bytes:
    """Byte-level letters to bytes; raises KeyError on any other character."""
    return bytes(BYTE[letter] for letter in letters)
