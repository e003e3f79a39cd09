"""Bits per byte before and after a transplant, by method and kind of text: what a swap costs, and where.

    python scripts/bench_fidelity.py --texts DIR --model smollm2 --targets qwen3 llama3 gemma3 --json fidelity.json

DIR holds one file a kind; models and tokenizers are folders of $TOKENADAPT_BENCH, or paths. Tables are made by the
product's own road and swapped inside one loaded model. Every figure is kept in the JSON as soon as it is known, so that
a run can be stopped and taken up again.

Columns: `excess` is bits per byte after minus before on the same bytes. With --where also: (a) the source reading each
target token as its pieces, (b) those perfect states under the new output table, (c) the whole swap.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table as Drawn

from tokenadapt.evaluation import Encoded, ScoreOptions, TextEncoder, score_encoded
from tokenadapt.making import Job, choose, make, source_model
from tokenadapt.overlap import measure_overlap
from tokenadapt.plan import build_table
from tokenadapt.progress import PlainProgress
from tokenadapt.recipe import TransplantOptions, read_recipe, shipped, with_recipe
from tokenadapt.setting import Setting, prepare
from tokenadapt.vocab.types import How

METHODS = ("zero", "mean", "normal", "pieces", "length", "ends", "asymmetric", "local", "global", "hybrid")
DOCUMENT = 4096  # characters
WINDOW = 512  # tokens
READABLE = 1.6  # source bits per byte under which a model is said to read a kind
CODES_OF_COPIES = (How.COPIED, How.SPECIAL, How.MAPPED)


@dataclass(frozen=True)
class Text:
    """One kind: its documents and their bytes."""

    kind: str
    documents: tuple[str, ...]
    nbytes: int


def read_texts(folder: Path, kinds: Sequence[str], kb: int) -> list[Text]:
    found = []
    for path in sorted(folder.glob("*.txt")):
        if kinds and path.stem not in kinds:
            continue
        text = path.read_bytes()[: kb * 1024].decode("utf-8", "ignore")
        documents = tuple(text[at : at + DOCUMENT] for at in range(0, len(text), DOCUMENT))
        found.append(Text(path.stem, documents, len(text.encode())))
    if not found:
        raise SystemExit(f"no texts in {folder}")
    return found


def bench_path(name: str) -> str:
    if name == "pocket" or os.path.exists(name):
        return name
    home = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench"))
    return str(home / name)


class Bench:
    """One source model, one target tokenizer, tied or not: rows in, bits per byte out."""

    def __init__(self, model: str, target: str, untie: bool, texts: list[Text]) -> None:
        from transformers import AutoModelForCausalLM

        self.base = TransplantOptions(bench_path(model), bench_path(target), "unused", untie=untie)
        self.setting: Setting = prepare(self.base)
        self.source = source_model(self.setting, self.base)
        self.texts = texts
        self.options = ScoreOptions(context=WINDOW, bos="never")
        self.old = AutoModelForCausalLM.from_pretrained(self.setting.checkpoint.folder, dtype=torch.float32).eval()
        self.new = AutoModelForCausalLM.from_pretrained(self.setting.checkpoint.folder, dtype=torch.float32).eval()
        encoder = TextEncoder.of(self.setting.target_tokenizer)
        self.encoder = encoder
        self.encoded: dict[str, Encoded] = {text.kind: encoder.encode(text.documents) for text in texts}

    def before(self) -> dict[str, float]:
        encoder = TextEncoder.of(self.setting.source_tokenizer)
        return {
            text.kind: score_encoded(self.old, encoder, encoder.encode(text.documents), self.options).bits_per_byte
            for text in self.texts
        }

    def tables(self, method: str) -> dict[str, torch.Tensor]:
        options = method_options(self.base, method)
        job = Job(self.setting, options, choose(options, self.setting.roles), measure_overlap(self.setting))
        return {
            one.role: torch.cat([block.float() for block in build_table(one.old, one.alignment, one.made, one.unused)])
            for one in make(job, self.source, PlainProgress())
        }

    def swap(self, tables: dict[str, torch.Tensor]) -> None:
        for role, holder in (("input", self.new.get_input_embeddings()), ("output", self.new.get_output_embeddings())):
            holder.weight = torch.nn.Parameter(tables.get(role, tables["output"]), requires_grad=False)
        self.new.config.vocab_size = self.setting.rows

    def after(self, where: bool) -> dict[str, Any]:
        """Bits per byte by kind, and the parts that copied and new tokens take of them."""
        is_copy = np.isin(self.setting.alignment.how, CODES_OF_COPIES)
        found: dict[str, Any] = {"after": {}, "copied": {}, "new": {}}
        for text in self.texts:
            scores = score_encoded(self.new, self.encoder, self.encoded[text.kind], self.options)
            bits, copied = scores.bits, is_copy[scores.encoded.ids]
            found["after"][text.kind] = scores.bits_per_byte
            found["copied"][text.kind] = float(bits[copied].sum()) / text.nbytes
            found["new"][text.kind] = float(bits[~copied].sum()) / text.nbytes
        if where:
            found["perfect_states"] = {text.kind: self._perfect(text) for text in self.texts}
        return found

    @torch.inference_mode()
    def _perfect(self, text: Text) -> float:
        """(b): the source's own states after each target token's pieces, under the new output table."""
        head = self.new.get_output_embeddings().weight
        total = 0.0
        for states, ids in self.read_as_pieces(text):
            for first in range(0, len(ids), 256):
                logits = states[first : first + 256] @ head.T
                total -= float(torch.log_softmax(logits, 1).gather(1, ids[first : first + 256, None]).double().sum())
        return total / np.log(2) / text.nbytes

    def read_as_pieces(self, text: Text) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Per window: states before each target token but the first, and the tokens' ids."""
        kept = getattr(self, "_read", None)
        if kept is None:
            kept = self._read = {}
        if text.kind not in kept:
            kept[text.kind] = [self._read_one(ids) for ids in self._windows(text)]
        return kept[text.kind]

    @torch.inference_mode()
    def forced(self) -> dict[str, float]:
        """(a): the source's bits for each target token as its pieces, first tokens of a window left out as in (b)."""
        head = self.old.get_output_embeddings().weight
        found = {}
        for text in self.texts:
            total = 0.0
            for ids in self._windows(text):
                pieces = [self._pieces(index) for index in ids]
                flat = torch.tensor([piece for run in pieces for piece in run])
                with torch.inference_mode():
                    states = self.old.base_model(input_ids=flat[None]).last_hidden_state[0]
                skip = len(pieces[0])
                logs = torch.log_softmax(states[skip - 1 : -1] @ head.T, 1)
                total -= float(logs.gather(1, flat[skip:, None]).double().sum())
            found[text.kind] = total / np.log(2) / text.nbytes
        return found

    def _windows(self, text: Text) -> list[list[int]]:
        encoded = self.encoded[text.kind]
        runs = []
        for low, high in zip(encoded.start[:-1].tolist(), encoded.start[1:].tolist(), strict=True):
            runs += [encoded.ids[at : min(at + WINDOW // 2, high)].tolist() for at in range(low, high, WINDOW // 2)]
        return [run for run in runs if len(run) > 1]

    def _pieces(self, index: int) -> list[int]:
        alignment, cut = self.setting.alignment, self.setting.segmentation
        if alignment.source_id[index] >= 0:
            return [int(alignment.source_id[index])]
        at = int(np.searchsorted(alignment.missing, index))
        return cut.piece[cut.start[at] : cut.start[at + 1]].tolist() or [0]

    @torch.inference_mode()
    def _read_one(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pieces = [self._pieces(index) for index in ids]
        flat = torch.tensor([piece for run in pieces for piece in run])
        states = self.old.base_model(input_ids=flat[None]).last_hidden_state[0]
        ends = torch.tensor(np.cumsum([len(run) for run in pieces]) - 1)
        return states[ends[:-1]], torch.tensor(ids[1:])


def method_options(base: TransplantOptions, text: str) -> TransplantOptions:
    """`pieces`, `pieces>length` (output rule after >), `pieces+norm`, `pieces+bias=-2`, `hybrid@hf:ID`, or a recipe."""
    import dataclasses

    if text in shipped():
        return with_recipe(base, read_recipe(text), frozenset({"model", "tokenizer", "output", "untie"}))
    text, _, space = text.partition("@")
    text, *after = text.split("+")
    method, _, output = text.partition(">")
    bias = [part.partition("=")[2] for part in after if part.startswith("bias=")]
    return dataclasses.replace(
        base,
        method=method,
        output_method=output or None,
        space=bench_space(space) if space else base.space,
        calibrate_norm="norm" in after,
        bias_per_piece=float(bias[0]) if bias else 0.0,
    )


def bench_space(space: str) -> str:
    kind, _, name = space.partition(":")
    return f"{kind}:{bench_path(name)}" if name and kind in ("hf", "st", "static") else space


def mean(values: dict[str, float], kinds: Sequence[str]) -> float:
    return sum(values[kind] for kind in kinds) / len(kinds)


def run(args: argparse.Namespace, kept: dict[str, Any]) -> None:
    texts = read_texts(args.texts, args.kinds, args.kb)
    kinds = [text.kind for text in texts]
    for target in args.targets:
        for untie in args.untie:
            key = f"{Path(args.model).name} {Path(target).name} {'untied' if untie else 'tied'} {args.kb}KB"
            entry = kept.setdefault(key, {"methods": {}})
            wanted = [one for one in args.methods if set(kinds) - set(entry["methods"].get(one, {}).get("after", {}))]
            if not wanted and "before" in entry:
                continue
            bench = Bench(args.model, target, untie, texts)
            if set(kinds) - set(entry.get("before", {})):
                entry["before"] = bench.before()
                if args.where:
                    entry["forced"] = bench.forced()
                save(args.json, kept)
            for method in wanted:
                began = time.perf_counter()
                bench.swap(bench.tables(method))
                made = time.perf_counter() - began
                entry["methods"][method] = {**bench.after(args.where), "seconds": round(made, 1)}
                save(args.json, kept)
                excess = mean(entry["methods"][method]["after"], kinds) - mean(entry["before"], kinds)
                print(f"{key}: {method}: excess {excess:.3f}", flush=True)


def save(path: Path, kept: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    part.replace(path)


def show(kept: dict[str, Any]) -> None:
    for key, entry in kept.items():
        kinds = sorted(entry["before"])
        read = [kind for kind in kinds if entry["before"][kind] < READABLE] or kinds
        drawn = Drawn(title=key, box=None, title_justify="left")
        for column in ("method", "mean", "excess", f"excess on {len(read)} readable", "new", *kinds):
            drawn.add_column(column, justify="left" if column == "method" else "right")
        before = entry["before"]
        drawn.add_row("(source)", f"{mean(before, kinds):.3f}", "", "", "", *(f"{before[kind]:.3f}" for kind in kinds))
        for method, one in sorted(entry["methods"].items(), key=lambda item: mean(item[1]["after"], kinds)):
            after = one["after"]
            cells = [f"{after[kind] - before[kind]:+.3f}" for kind in kinds]
            excess = mean(after, kinds) - mean(before, kinds)
            readable = mean(after, read) - mean(before, read)
            share = f"{mean(one['new'], kinds):.3f}"
            drawn.add_row(method, f"{mean(after, kinds):.3f}", f"{excess:.3f}", f"{readable:.3f}", share, *cells)
        console = Console(width=240, highlight=False)
        console.print(drawn)
        for method, one in entry["methods"].items():
            if "perfect_states" in one and "forced" in entry:
                figures = (mean(entry["forced"], kinds), mean(one["perfect_states"], kinds), mean(one["after"], kinds))
                console.print(f"  {method}: (a) {figures[0]:.3f}  (b) {figures[1]:.3f}  (c) {figures[2]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--targets", nargs="+", default=["qwen3"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--kb", type=int, default=8)
    parser.add_argument("--untie", nargs="+", type=lambda word: word == "untied", default=[True], metavar="untied|tied")
    parser.add_argument("--where", action="store_true", help="also (a), (b) and (c)")
    parser.add_argument("--json", type=Path, default=Path("fidelity.json"))
    args = parser.parse_args()
    kept = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
    run(args, kept)
    show(kept)


if __name__ == "__main__":
    main()
