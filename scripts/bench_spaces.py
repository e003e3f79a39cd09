#!/usr/bin/env python3
"""How fast strings become vectors: strings of two real vocabularies, encoded as the program does and naively.

    scripts/bench_spaces.py --encoder ENCODER --source TOKENIZER --target TOKENIZER [--strings N] [--json FILE]

Naive is what TokenAdapt's published code does: alphabetical order, 16 strings a batch, padded to the longest, no
string left out because the encoder reads it like another. Times are processor seconds of one process, so that other
load on the machine does not count; set OMP_NUM_THREADS=1 to have strings per second and core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tokenadapt.spaces.neighbours import nearest
from tokenadapt.spaces.options import SpaceOptions
from tokenadapt.spaces.stored import make_batches
from tokenadapt.spaces.strings import Strings
from tokenadapt.spaces.transformer import TransformerEncoder
from tokenadapt.vocab.load import load_tokenizer
from tokenadapt.vocab.read import byte_vocab


def strings_of(source: str, target: str, count: int) -> list[str]:
    """A seeded sample of the distinct strings of both vocabularies, as a transplant would encode them."""
    tokens = [t for spec in (source, target) for t in byte_vocab(load_tokenizer(spec)).token_bytes]
    texts = Strings(tokens).texts
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order[: count or len(texts)]]


def naive(encoder: TransformerEncoder, texts: list[str]) -> tuple[float, int, int]:
    """Seconds, padded tokens and strings encoded: alphabetical, fixed batches of 16."""
    texts = sorted(texts)
    began, padded = time.process_time(), 0
    for first in range(0, len(texts), 16):
        batch = encoder._tokenize(texts[first : first + 16])
        padded += len(batch) * max(map(len, batch))
        encoder.encode(batch)
    return time.process_time() - began, padded, len(texts)


def ours(encoder: TransformerEncoder, texts: list[str]) -> tuple[float, int, int]:
    """The same of the program's own way, tokenising and storing included."""
    began = time.process_time()
    encoder.prefetch(texts)
    spent = time.process_time() - began
    inputs = list(dict.fromkeys(ids for ids in encoder._inputs(texts) if ids))
    lengths = [len(ids) for ids in inputs]
    padded = sum(len(b) * lengths[b[0]] for b in make_batches(lengths, encoder.stored.budget))
    return spent, padded, len(inputs)


def search(backend: str, width: int, queries: int, candidates: int) -> float:
    """Seconds of an exact search for 3 neighbours of random unit vectors."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(queries + candidates, width)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    barred = np.full(queries, -1)
    began = time.process_time()
    nearest(np.arange(candidates), lambda ids: rows[ids], lambda q: rows[candidates + q], barred, 3, backend=backend)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--strings", type=int, default=0, help="encode a sample of this size; 0 for all")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    texts = strings_of(args.source, args.target, args.strings)
    rows = []
    for name, precision, run in (
        ("naive, float32", "float32", naive),
        ("length-sorted, float32", "float32", ours),
        ("length-sorted, bfloat16", "bfloat16", ours),
    ):
        with tempfile.TemporaryDirectory() as folder:
            import os

            os.environ["TOKENADAPT_CACHE"] = folder
            encoder = TransformerEncoder(args.encoder, SpaceOptions(precision=precision))
            encoder.encode(encoder._tokenize(["warm"]))
            spent, padded, encoded = run(encoder, texts)
            real = sum(map(len, encoder._tokenize(texts)))
        rows.append({"way": name, "strings": len(texts), "encoded": encoded, "padded tokens": padded, "tokens": real,
                     "seconds": round(spent, 2), "strings/s": round(len(texts) / spent)})  # fmt: skip
        print(rows[-1], flush=True)
    for backend in ("faiss", "torch"):
        spent = search(backend, 384, 8192, 49152)
        rows.append({"way": f"search, {backend}", "seconds": round(spent, 2), "queries/s": round(8192 / spent)})
        print(rows[-1], flush=True)
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
