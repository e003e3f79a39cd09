"""Vectors kept on disk: one folder per encoder as it was used, one key per input."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.spaces.segments import KEY, SUFFIX, read_segment, remove_stale, write_segment

ABOUT: Final = "about.json"
FORMAT: Final = 1
_LOG: Final = logging.getLogger("tokenadapt.spaces")


def cache_root() -> Path:
    """$TOKENADAPT_CACHE, else the user's cache folder."""
    named = os.environ.get("TOKENADAPT_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("tokenadapt"))


def cache_folder() -> Path:
    """What holds vectors: the subfolder `vectors`."""
    return cache_root() / "vectors"


def texts_folder() -> Path:
    """What holds texts that models wrote themselves: the subfolder `texts`."""
    return cache_root() / "texts"


def content_key(content: bytes) -> bytes:
    """The key of an input: a digest of all its bytes."""
    return hashlib.blake2b(content, digest_size=KEY).digest()


class VectorCache:
    """Vectors of one encoder: what `identity` says (weights, pooling, prefix, precision) is all they depend on.

    Rows are stored in float16, which costs a cosine less than 1e-4, and always read back from there, so that a first
    run and a cached one see the same numbers. `title` is for people and is not part of the address.
    """

    def __init__(self, title: str, identity: Mapping[str, object], folder: Path | None = None) -> None:
        about = {"format": FORMAT, **identity}
        mark = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
        slug = re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-")[-40:].strip("-") or "encoder"
        self.folder = (folder or cache_folder()) / f"{slug}-{mark}"
        found = sorted(self.folder.parent.glob(f"*-{mark}"))  # the same contents under another title
        self.folder = found[0] if found else self.folder
        self.about = {"title": title, **about}
        self._place: dict[bytes, tuple[int, int]] = {}
        self._segments: list[NDArray[np.float16]] = []
        self._known: set[str] = set()
        remove_stale(self.folder)
        self.refresh()

    @property
    def width(self) -> int:
        """d, or 1 where nothing is stored."""
        return int(self._segments[0].shape[1]) if self._segments else 1

    def __contains__(self, key: bytes) -> bool:
        """Whether a vector is at hand."""
        return key in self._place

    def __len__(self) -> int:
        """Number of vectors."""
        return len(self._place)

    def refresh(self) -> None:
        """Take in segments that appeared since the last look; a damaged one is reported and left aside."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if path.name not in self._known:
                self._known.add(path.name)
                self._load(path)

    def _load(self, path: Path) -> None:
        try:
            segment = read_segment(path)
            if self._segments and segment.vectors.shape[1] != self.width:
                raise ValueError("its vectors have another width")
        except (OSError, ValueError) as error:
            _LOG.warning(
                "The cached vectors in %s are left aside: %s. `tokenadapt cache clear` removes them.", path, error
            )
            return
        for row, key in enumerate(segment.keys):
            self._place.setdefault(key, (len(self._segments), row))
        self._segments.append(segment.vectors)

    def require_writable(self) -> None:
        """Fail before hours of encoding and not after them.

        Raises RequestError where the folder cannot be made or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            about = self.folder / ABOUT
            with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".tmp", prefix=".", delete=False) as file:
                json.dump(self.about, file, indent=1)
            os.replace(file.name, about)
        except OSError as error:
            raise RequestError(
                f"The vector cache {self.folder} cannot be written ({error.strerror or error}).",
                "Set TOKENADAPT_CACHE to a folder that you may write, or choose the space self, which needs none.",
            ) from error

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Store vectors as a new segment and take it in.

        Raises TokenAdaptError for vectors that are not finite, and where the disk is full.
        """
        if not len(keys):
            return
        narrow = vectors.astype(np.float16)
        if not np.isfinite(narrow).all():
            raise TokenAdaptError(
                f"The encoder {self.about['title']} gave vectors that are not finite.",
                "Its weights may be damaged, or its precision too low: try another precision or encoder.",
            )
        try:
            path = write_segment(self.folder, keys, narrow)
        except OSError as error:
            raise TokenAdaptError(
                f"The vector cache {self.folder} could not be written ({error.strerror or error}).",
                "Free some space or set TOKENADAPT_CACHE to another disk; what was encoded so far is kept.",
            ) from error
        self._known.add(path.name)
        self._load(path)

    def hold(self, keys: Sequence[bytes], vectors: NDArray[np.float16]) -> None:
        """Take vectors in for this process alone: another rank's, where no file system is shared."""
        for row, key in enumerate(keys):
            self._place.setdefault(key, (len(self._segments), row))
        self._segments.append(vectors)

    def rows(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """Stored vectors in order: (len(keys), d). KeyError for one that is not there."""
        out = np.zeros((len(keys), self.width), dtype=np.float32)
        place = np.array([self._place[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        for segment in np.unique(place[:, 0]):
            here = np.flatnonzero(place[:, 0] == segment)
            out[here] = self._segments[segment][place[here, 1]]
        return out


@dataclass(frozen=True)
class CacheEntry:
    """One encoder's folder in the cache."""

    folder: Path
    title: str
    details: str
    vectors: int
    size: int  # bytes on disk


def cache_entries(folder: Path | None = None) -> list[CacheEntry]:
    """What the cache holds, by name."""
    root = folder or cache_folder()
    return [_entry(path) for path in sorted(root.iterdir()) if path.is_dir()] if root.is_dir() else []


def _entry(path: Path) -> CacheEntry:
    files = list(_segment_sizes(path))
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = {}
    hidden = ("title", "format", "content")
    details = ", ".join(f"{name} {value}" for name, value in about.items() if name not in hidden and value != "")
    return CacheEntry(
        path, str(about.get("title", path.name)), details, sum(n for n, _ in files), sum(s for _, s in files)
    )


def _segment_sizes(path: Path) -> Iterator[tuple[int, int]]:
    for file in path.glob(f"*{SUFFIX}"):
        try:
            with file.open("rb") as opened:
                yield int.from_bytes(opened.read(12)[8:], "little"), os.fstat(opened.fileno()).st_size
        except OSError:
            continue


def clear_cache(names: Sequence[str] = (), folder: Path | None = None) -> list[CacheEntry]:
    """Delete the named folders of the cache, or all of them; returns what was deleted.

    Raises RequestError for a name that is not there, before anything is deleted.
    """
    entries = cache_entries(folder)
    by_name = {entry.folder.name: entry for entry in entries}
    if unknown := [name for name in names if name not in by_name]:
        has = ", ".join(by_name) or "nothing"
        raise RequestError(f"The cache holds no {unknown[0]!r}.", f"It holds {has}.")
    chosen = [by_name[name] for name in names] if names else entries
    for entry in chosen:
        shutil.rmtree(entry.folder)
    return chosen
