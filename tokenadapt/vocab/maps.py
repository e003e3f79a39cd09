"""The user's own pairs of tokens: `TARGET=SOURCE_TEXT` on the command line, or a file of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import yaml

from tokenadapt.errors import RequestError
from tokenadapt.vocab.index import ids_by_bytes
from tokenadapt.vocab.types import ByteVocab, Kind

_TEXT: Final = (Kind.ORDINARY, Kind.BYTE, Kind.ADDED)
_FORMS: Final = (
    "Write --map 'TARGET=SOURCE TEXT', or a file: TARGET, a tab, SOURCE TEXT a line; or a JSON or YAML object."
)


def parse_maps(
    pairs: Sequence[str], file: Path | None, source: ByteVocab, target: ByteVocab
) -> dict[int, tuple[int, ...]]:
    """Target id -> old ids. A source text that is one old token gives its id, a longer one the ids of its pieces.

    TARGET is a special or added token by name, a text that is one token, a token in the tokenizer's own spelling
    (`Ġthe`), or `#` and an id. SOURCE_TEXT is read in the same way; a text of several tokens is cut by the source's own
    model. The first = after the first character divides a pair; a later pair of the same target wins, and pairs win
    over the file. Raises RequestError where a side names nothing.
    """
    wanted = _read_file(file) if file is not None else {}
    for pair in pairs:
        name, equals, text = pair[:1] + pair[1:].partition("=")[0], *pair[1:].partition("=")[1:]
        if not equals or not text:
            raise RequestError(f"The map {pair!r} is not of the form TARGET=SOURCE_TEXT.", _FORMS)
        wanted[name] = text
    if not wanted:
        return {}
    new, old = TokenNames(target), TokenNames(source)
    maps = {}
    for name, text in wanted.items():
        index = new.find(name)
        if index is None:
            raise RequestError(
                f"The map names {name!r}, which is no token of the target tokenizer.",
                "Write the token as text, as the tokenizer spells it (Ġthe), or as # and its id.",
            )
        maps[index] = old.pieces(text)
    return maps


class TokenNames:
    """A vocabulary as users name its tokens: on the command line and in files of maps."""

    def __init__(self, vocab: ByteVocab) -> None:
        self.vocab = vocab
        self.spelled = {text: index for index, text in enumerate(vocab.text) if text is not None}
        self.by_bytes = ids_by_bytes(vocab, len(vocab), _TEXT)
        control = np.flatnonzero(np.isin(vocab.kind, (Kind.SPECIAL, Kind.ADDED))).tolist()
        self.control = {vocab.text[index]: index for index in control}

    def find(self, name: str) -> int | None:
        """The id that a user means: control token by name, text, own spelling, #id."""
        for known, key in ((self.control, name), (self.by_bytes, name.encode()), (self.spelled, name)):
            if key in known:
                return int(known[key])  # type: ignore[index]
        if name.startswith("#") and name[1:].isdecimal() and int(name[1:]) < len(self.vocab):
            index = int(name[1:])
            return index if self.vocab.kind[index] != Kind.GAP else None
        return None

    def pieces(self, text: str) -> tuple[int, ...]:
        """One id, or the pieces that the model cuts the text into."""
        index = self.find(text)
        if index is not None:
            return (index,)
        [ids] = self.vocab.spell([text.encode()])
        if not ids:
            raise RequestError(
                f"The map's source text {text!r} is no token of the source tokenizer, nor can its tokens spell it.",
                "Name a token of the source, or a text that its own tokens join to.",
            )
        return tuple(ids)


def _read_file(path: Path) -> dict[str, str]:
    """A JSON or YAML object, or lines of TARGET, tab, SOURCE TEXT (any other ending)."""
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            read = json.loads(content)
        elif path.suffix in (".yaml", ".yml"):
            read = yaml.safe_load(content)
        else:
            lines = [line for line in content.split("\n") if line.strip()]
            read = dict(line.rstrip("\r").split("\t") for line in lines)
    except OSError as error:
        raise RequestError(f"The map file {path} cannot be read: {error.strerror or error}.", _FORMS) from error
    except (ValueError, yaml.YAMLError) as error:
        raise RequestError(f"The map file {path} is not of a form that can be read.", _FORMS) from error
    if not isinstance(read, dict) or not all(isinstance(side, str) for pair in read.items() for side in pair):
        raise RequestError(f"The map file {path} does not hold pairs of texts.", _FORMS)
    return read
