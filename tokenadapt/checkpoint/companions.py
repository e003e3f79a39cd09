"""Files of the source that belong to the model and to no vocabulary: licence texts, image processors, its own code."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

# Tokenizer files and cards never come from the source: a stale one would be believed.
_KEPT: Final = (
    "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*",
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip


def copy_companions(folder: Path, config: Mapping[str, Any], staging: Path) -> tuple[str, ...]:
    """Copy them into `staging` where nothing has their name yet; gives the names.

    Code is copied only where `config` says that the model is made by modules of its own folder; it is not run.
    """
    copied = []
    for path in sorted({*_matching(folder), *_modules(folder, config)}):
        target = staging / path.name
        if path.is_file() and not target.exists():
            shutil.copyfile(path, target)
            copied.append(path.name)
    return tuple(copied)


def _matching(folder: Path) -> Iterator[Path]:
    for pattern in _KEPT:
        yield from folder.glob(pattern)


def _modules(folder: Path, config: Mapping[str, Any]) -> Iterator[Path]:
    """All modules beside one that the config names: they import each other. `repo--module.Class` lives elsewhere."""
    named = [name for name in (config.get("auto_map") or {}).values() if isinstance(name, str) and "--" not in name]
    if named:
        yield from (path for path in folder.glob("*.py") if not path.name.startswith("tokenization"))
