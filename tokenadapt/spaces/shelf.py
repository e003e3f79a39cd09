"""Texts that models wrote, kept on disk by what they depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenadapt.spaces.cache import texts_folder


@dataclass(frozen=True)
class Shelf:
    """A folder with one file a collection: a JSON list of texts, as strings or as ids."""

    folder: Path

    def get(self, key: str) -> list[Any] | None:
        """What was put under a key; None where there is nothing, or nothing whole."""
        try:
            found = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, list) else None

    def put(self, key: str, texts: Sequence[Any]) -> None:
        """Keep texts; a folder that cannot be written is no error: they are written anew next time."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{key}.{os.getpid()}.part"
            part.write_text(json.dumps(list(texts)), encoding="utf-8")
            os.replace(part, self.folder / f"{key}.json")
        except OSError:
            return


def shelf() -> Shelf:
    """Where texts are kept for this user."""
    return Shelf(texts_folder())
