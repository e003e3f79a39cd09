"""Word translations with weights: from a table, or counted on a parallel corpus."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import regex

from tokenadapt.errors import MissingExtraError, RequestError

Pair = tuple[str, str]  # source word and target word, each with the space before it where it has one
UNIT = regex.compile(r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}+| ?[^\s\p{L}\p{N}]")
SENTENCES = 2_000_000  # read at most


def read_table(path: Path, min_count: float) -> Counter[Pair]:
    """Lines of source word, target word and weight, parted by tabs (no weight: 1).

    Four columns are fast_align's: the third is a log-probability, the fourth a count, and pairs below `min_count` are
    noise. A word stands for itself with a space before it and without.
    """
    found: Counter[Pair] = Counter()
    for number, fields in _fields(path):
        try:
            weight = float(fields[-1]) if len(fields) > 2 else 1.0
        except ValueError:
            weight = math.nan
        if not 2 <= len(fields) <= 4 or not weight >= 0:
            raise RequestError(
                f"{path}, line {number}: no source word, target word and weight.", "Part the columns by tabs."
            )
        source, target = fields[:2]
        if "<eps>" in (source, target) or (len(fields) == 4 and weight < min_count):
            continue
        for before in ("", " "):
            found[before + source.strip(), before + target.strip()] += weight  # type: ignore[assignment]
    return found


def count_links(path: Path, min_count: float) -> Counter[Pair]:
    """How often eflomal links two words of a parallel corpus, in both directions; pairs below `min_count` dropped.

    A line is a sentence and its translation, parted by a tab. eflomal draws samples without a seed: its counts differ
    a little from run to run.
    """
    try:
        from eflomal import Aligner
    except ImportError:
        raise MissingExtraError("Aligning a parallel corpus", "eflomal", "eflomal") from None
    pairs = [(UNIT.findall(a), UNIT.findall(b)) for _, (a, b) in _sentences(path)]
    pairs = [(a, b) for a, b in pairs if a and b]
    if not pairs:
        raise RequestError(f"{path} holds no pair of sentences.", "A line is a sentence, a tab, its translation.")
    found: Counter[Pair] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        links = [Path(folder) / name for name in ("forward", "reverse")]
        left, right = (
            [" ".join(word.strip() for word in side) + "\n" for side in sides] for sides in zip(*pairs, strict=True)
        )
        Aligner().align(left, right, links_filename_fwd=str(links[0]), links_filename_rev=str(links[1]))
        for file in links:
            for (source, target), line in zip(pairs, file.read_text().splitlines(), strict=True):
                for link in line.split():
                    i, j = map(int, link.split("-"))
                    found[source[i], target[j]] += 1
    return Counter({pair: count for pair, count in found.items() if count >= min_count})


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    if not path.is_file():
        raise RequestError(f"There is no file {path}.", "Name a text file with columns parted by tabs.")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\r\n").split("\t")


def _sentences(path: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, fields in _fields(path):
        if number > SENTENCES:
            return
        if len(fields) >= 2:
            yield number, (fields[0].strip(), fields[1].strip())
