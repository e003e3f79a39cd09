"""In which script a token is written."""

from __future__ import annotations

import unicodedata
from typing import Final

PART: Final = "parts of characters"


def script_of_token(data: bytes) -> str:
    """The script of a token's bytes; PART where they are no whole characters."""
    try:
        return script_of(data.decode())
    except UnicodeDecodeError:
        return PART


def script_of(text: str) -> str:
    """The script of the first letter, else what kind of characters these are."""
    letter = next((char for char in text if char.isalpha()), None)
    if letter is not None:
        name = unicodedata.name(letter, "unnamed").split(" ")[0].split("-")[0].lower()
        return {"fullwidth": "latin", "modifier": "marks", "mathematical": "latin"}.get(name, name)
    if any(char.isnumeric() for char in text):
        return "digits"
    return "white space" if not text.strip() else "marks"
