"""Plain BPE and both kinds of supertokens, side by side: density on held-out text, training time and memory, speed.

    python scripts/bench_training.py --train DIR --eval DIR [--kinds NAME ...] [--sizes 8000 ...] [--json OUT]

DIR holds NAME.txt or NAME.txt.gz files. Every training runs in a process of its own from counts made once, so that
time and memory are those of the training alone; seconds are CPU seconds, which a busy machine does not change much.
`--book` holds out one whole book of a file of Project Gutenberg books (cut at their closing lines) instead of `--eval`.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLAN = [
    ("plain", {}),
    ("two-stage 0.9", {"supertokens": "two-stage", "transition": 0.9}),
    ("two-stage 0.7", {"supertokens": "two-stage", "transition": 0.7}),
    ("two-stage 0.5", {"supertokens": "two-stage", "transition": 0.5}),
    ("two-stage 0.3", {"supertokens": "two-stage", "transition": 0.3}),
    ("stochastic, characters", {"supertokens": "stochastic"}),
    ("stochastic, words", {"supertokens": "stochastic", "length_unit": "words"}),
]


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        _train_one(json.loads(arguments.one))
        return
    with tempfile.TemporaryDirectory(prefix="bench-training-") as scratch:
        folder = Path(scratch)
        corpora, held_out = _texts(arguments, folder)
        counts = {kind: _count(kind, corpora, folder) for kind in ("word", "stretch")}
        rows = []
        for size in arguments.sizes:
            for name, options in PLAN:
                if arguments.only and not any(name.startswith(part) for part in arguments.only):
                    continue
                rows.append(_measured(name, size, options, counts, held_out, folder))
                print(json.dumps(rows[-1]), flush=True)
        _show(rows, counts, {kind: len(text.encode()) for kind, text in held_out.items()})
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows, "counts": counts}, indent=2), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, help="folder of training texts")
    parser.add_argument("--eval", type=Path, help="folder of held-out texts")
    parser.add_argument("--kinds", nargs="+", default=["english_books", "english_wikitext2", "english_handbook"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8000, 16000, 32000])
    parser.add_argument("--only", nargs="+", help="only the rows whose names begin so")
    parser.add_argument("--book", action="store_true", help="hold out the last long book of the training texts")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def _texts(arguments: argparse.Namespace, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Training files, and held-out texts by kind."""
    from tokenadapt.corpus import read_corpus

    training = [next(arguments.train.glob(f"{kind}.txt*")) for kind in arguments.kinds]
    if not arguments.book:
        held_out = [path for kind in arguments.kinds for path in arguments.eval.glob(f"{kind}.*")]
        documents = list(read_corpus([str(path) for path in held_out]))
        return [str(path) for path in training], {document.label: document.text for document in documents}
    text = "".join(document.text for path in training for document in read_corpus([str(path)]))
    books = re.split(r"(?<=\n)(?=End of (?:the |this )?Project Gutenberg)", text)
    last = max(at for at, book in enumerate(books) if len(book) > 200_000)
    rest = folder / "books.txt"
    rest.write_text("".join(book for at, book in enumerate(books) if at != last), encoding="utf-8", newline="")
    return [str(rest)], {"a whole book": books[last][:400_000]}


def _count(kind: str, corpora: list[str], folder: Path) -> dict[str, Any]:
    """One pass over the corpus in this process; the counts file and its cost."""
    from tokenadapt.corpus import read_corpus
    from tokenadapt.training.counts import Counts, save_counts
    from tokenadapt.training.options import TrainingOptions
    from tokenadapt.training.prepare import prepare

    supertokens = "two-stage" if kind == "stretch" else None
    options = TrainingOptions(tuple(corpora), "unused", 32000, supertokens=supertokens)
    counts = Counts(prepare(options).cut)
    began = time.process_time()
    counts.add(read_corpus(corpora, options.reading()))
    seconds = time.process_time() - began
    path = folder / f"{kind}.parquet"
    save_counts(counts, path)
    return {"path": str(path), "pieces": len(counts.pieces), "bytes": counts.bytes, "seconds": seconds}


def _train_one(request: dict[str, Any]) -> None:
    """The training alone: no report, which loads transformers."""
    from tokenadapt.progress import SILENT
    from tokenadapt.training.families import FAMILIES, Order
    from tokenadapt.training.options import TrainingOptions
    from tokenadapt.training.output import write_tokenizer
    from tokenadapt.training.prepare import prepare, stored_counts

    options = TrainingOptions((), **{**request, "counts": tuple(request["counts"])})
    prepared = prepare(options)
    counts = stored_counts(prepared, options.counts)
    size = options.vocab_size - len(prepared.frame.added)
    made = FAMILIES["bpe"](Order(options, prepared.frame, counts, size, SILENT))
    write_tokenizer(made, Path(options.output), {})
    own, trainer = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    # ru_maxrss of a process counts its parent's memory before exec; the high-water mark of the address space does not
    status = Path("/proc/self/status").read_text()
    peak = max(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]), trainer.ru_maxrss)
    spent = own.ru_utime + own.ru_stime + trainer.ru_utime + trainer.ru_stime
    print(json.dumps({"cpu_seconds": spent, "peak_mb": peak / 1024}))


def _measured(
    name: str, size: int, options: dict[str, Any], counts: dict[str, Any], held_out: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Train in a process of its own, then measure what it wrote."""
    used = counts["stretch" if options else "word"]
    output = folder / f"{name}-{size}".replace(" ", "-")
    request = {"counts": [used["path"]], "output": str(output), "vocab_size": size, **options}
    began = time.monotonic()
    command = [sys.executable, __file__, "--one", json.dumps(request)]
    spent = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = {
        "name": name, "size": size, "cpu_seconds": spent["cpu_seconds"] + used["seconds"],
        "wall_seconds": time.monotonic() - began, "peak_mb": spent["peak_mb"],
    }  # fmt: skip
    return {**row, **_figures(output, held_out)}


def _figures(output: Path, held_out: dict[str, str]) -> dict[str, Any]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    lengths, speeds = {}, []
    for kind, text in held_out.items():
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        lengths[kind] = len(text.encode()) / len(ids)
    for _ in range(5):
        fresh = Tokenizer.from_file(str(output / "tokenizer.json"))  # an empty cache, as at a first encounter
        began = time.process_time()
        for text in held_out.values():
            fresh.encode(text)
        speeds.append(sum(len(text.encode()) for text in held_out.values()) / (time.process_time() - began))
    return {"vocabulary": tokenizer.get_vocab_size(), "bytes_per_token": lengths, "encode_mb_s": max(speeds) / 1e6}


def _together(row: dict[str, Any], sizes: dict[str, int]) -> float:
    """All held-out bytes over all tokens."""
    return sum(sizes.values()) / sum(size / row["bytes_per_token"][kind] for kind, size in sizes.items())


def _show(rows: list[dict[str, Any]], counts: dict[str, Any], sizes: dict[str, int]) -> None:
    kinds = list(rows[0]["bytes_per_token"])
    for kind, made in counts.items():
        print(f"counted {made['bytes']:,} bytes as {made['pieces']:,} {kind}s in {made['seconds']:.1f} CPU s")
    head = ["size", "method", *kinds, "together", "gain", "CPU s", "x plain", "peak MB", "encode MB/s"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for row in rows:
        plain = next(other for other in rows if other["size"] == row["size"])
        mean, base = (_together(other, sizes) for other in (row, plain))
        cells = [
            f"{row['size']:,}", row["name"], *(f"{row['bytes_per_token'][kind]:.3f}" for kind in kinds), f"{mean:.3f}",
            f"{mean / base - 1:+.1%}", f"{row['cpu_seconds']:.1f}", f"{row['cpu_seconds'] / plain['cpu_seconds']:.2f}",
            f"{row['peak_mb']:.0f}", f"{row['encode_mb_s']:.2f}",
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
