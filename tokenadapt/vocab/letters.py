"""The 256 letters in which byte-level tokenizers write bytes (GPT-2's table)."""

from __future__ import annotations

from typing import Final


def _letters() -> list[str]:
    """Printable Latin-1 bytes are themselves; the others follow from U+0100 in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


LETTER_OF_BYTE: Final = tuple(_letters())
BYTE_OF_LETTER: Final = {letter: byte for byte, letter in enumerate(LETTER_OF_BYTE)}
_TO_LETTERS: Final = dict(enumerate(LETTER_OF_BYTE))


def to_letters(data: bytes) -> str:
    """Bytes in byte-level spelling."""
    return data.decode("latin-1").translate(_TO_LETTERS)


def from_letters(text: str) -> bytes | None:
    """The bytes that a byte-level spelling stands for; None where a character is no letter of the alphabet."""
    try:
        return bytes([BYTE_OF_LETTER[letter] for letter in text])
    except KeyError:
        return None
