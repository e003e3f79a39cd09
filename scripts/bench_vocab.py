"""Read, align and cut real vocabularies: counts and seconds for pairs of tokenizers.

    python scripts/bench_vocab.py smollm2:qwen3 gemma3:llama3

Names are folders of $TOKENADAPT_BENCH (default ~/.cache/tokenadapt-bench); paths and Hub ids work too.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from tokenadapt.vocab import align, byte_vocab, digits_differ, load_tokenizer, segment
from tokenadapt.vocab.types import ByteVocab

PAIRS = ("smollm2:qwen3", "smollm2:gemma3", "qwen3:gpt4o", "gemma3:llama3", "mistral-v1:qwen3", "bert:qwen3")
COLUMNS = ("pair", "target", "copied", "special", "missing", "unused", "alike", "pieces", "none", "read", "align+cut")


def read(name: str) -> ByteVocab:
    folder = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench")) / name
    return byte_vocab(load_tokenizer(str(folder) if folder.exists() else name))


def row(pair: str) -> tuple[list[str], str | None]:
    """One line of the table, and what differs in reading digits."""
    began = time.perf_counter()
    source, target = (read(name) for name in pair.split(":"))
    opened = time.perf_counter()
    alignment = align(source, target)
    pieces = segment(source, target, alignment).counts
    done = time.perf_counter()
    counts = alignment.counts()
    figures = [len(target), *(counts[name] for name in COLUMNS[2:6]), alignment.spelled_alike]
    mean = pieces[pieces > 0].mean() if pieces.any() else 0.0
    seconds = [f"{opened - began:.1f} s", f"{done - opened:.1f} s"]
    cells = [pair, *(f"{figure:,}" for figure in figures), f"{mean:.2f}", f"{(pieces == 0).sum():,}", *seconds]
    return cells, digits_differ(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", default=PAIRS, help="SOURCE:TARGET ...")
    print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS))
    notes = []
    for pair in parser.parse_args().pairs:
        cells, note = row(pair)
        print("| " + " | ".join(cells) + " |", flush=True)
        notes += [f"{pair}: {note}"] if note else []
    print("", *notes, sep="\n")


if __name__ == "__main__":
    main()
