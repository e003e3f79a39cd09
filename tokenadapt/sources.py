"""What a corpus spec names: files with their labels, standard input, or a Hub dataset."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenadapt.errors import RequestError
from tokenadapt.readers import PACKED, SUFFIXES, stem, unpacked_suffix


@dataclass(frozen=True)
class Source:
    """One spec, resolved: the files with their labels, or a stream that can be read only once."""

    spec: str
    weight: float
    files: tuple[tuple[Path, str], ...] = ()
    dataset: str | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it can be read twice, and so measured before it is sampled."""
        return bool(self.files)


def find_sources(specs: Sequence[str]) -> list[Source]:
    """Resolve every spec; a request that names nothing readable is refused here."""
    if not specs:
        raise RequestError("No corpus was given.", "Name files, folders, globs, - or hf:DATASET.")
    return [_source(spec) for spec in specs]


def _source(spec: str) -> Source:
    name, weight = spec, 1.0
    if not Path(spec).exists() and (match := re.fullmatch(r"(.+)=([0-9.]+(?:e-?[0-9]+)?)", spec)):
        name, weight = match[1], float(match[2])
        if weight <= 0:
            raise RequestError(f"The weight in {spec!r} is not positive.", "Leave the corpus out instead.")
    if name == "-":
        return Source(name, weight)
    if name.startswith("hf:"):
        return Source(name, weight, dataset=name[3:])
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if unpacked_suffix(file) in SUFFIXES and file.is_file())
        files = tuple((file, _label(file, path)) for file in found)
        if not files:
            raise RequestError(f"The folder {name} holds no .txt, .jsonl or .parquet file.", "Use a glob for others.")
        return Source(name, weight, files)
    if path.exists():
        return Source(name, weight, ((path, stem(path)),))
    if any(char in name for char in "*?["):
        globbed = [Path(file) for file in sorted(glob.glob(str(path), recursive=True))]
        files = tuple((file, stem(file)) for file in globbed if file.is_file())
        if not files:
            raise RequestError(f"The pattern {name!r} matches no file.", "Quote it, and check the folder.")
        return Source(name, weight, files)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) and Path(name).suffix not in {*SUFFIXES, *PACKED}:
        return Source(name, weight, dataset=name)
    raise RequestError(f"The corpus {name!r} does not exist.", "Name a file, a folder, a glob, - or hf:DATASET.")


def _label(file: Path, folder: Path) -> str:
    below = file.relative_to(folder).parts
    return below[0] if len(below) > 1 else stem(file)
