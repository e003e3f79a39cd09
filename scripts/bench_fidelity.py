"""Bits per byte before and after a transplant, by method and kind of text: what a swap costs, and where.

    python scripts/bench_fidelity.py --texts DIR [--models smollm2] [--targets qwen3 llama3] [--json fidelity.json]

DIR holds one file a kind; models and tokenizers are folders of $TOKENADAPT_BENCH, or paths; the tokenizer `supertoken`
is made by fidelity_files.py. What a model was trained on is left out for it (LEFT_OUT). Tables are made by the
product's own road and swapped inside one loaded model. Every figure is kept in the JSON as soon as it is known, so that
a run can be stopped and taken up again.

Methods are typed as fidelity_methods.py says; those that cannot be made are named and left out. Columns: `excess` is
bits per byte after minus before on the same bytes; `s` and `MB` what making the rows cost. With --anchors also
`hidden`: the harm in bits per byte on the model's own texts when old tokens are hidden and made again by the method
(input / output rows). With --where also: (a) the source reading each target token as its pieces, (b) those perfect
states under the new output table, (c) the whole swap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fidelity_costs import measured
from fidelity_methods import bench_path, can_be_scored, method_options, refuse_what_lacks
from fidelity_page import excess, hidden, peak, read_well, save
from fidelity_where import Where
from rich.console import Console
from rich.table import Table as Drawn

from tokenadapt.anchors import Anchors
from tokenadapt.choice import choose
from tokenadapt.errors import TokenAdaptError
from tokenadapt.evaluation import Encoded, ScoreOptions, TextEncoder, score_encoded
from tokenadapt.making import Job, anchors_of, finished, make, pose, source_model
from tokenadapt.methods import METHODS as REGISTRY
from tokenadapt.methods.make import make_rows
from tokenadapt.overlap import measure_overlap
from tokenadapt.plan import build_table
from tokenadapt.progress import PlainProgress
from tokenadapt.recipe import TransplantOptions
from tokenadapt.setting import Setting, prepare
from tokenadapt.vocab.types import How

MODELS = ("smollm2", "pocket")
TARGETS = ("qwen3", "llama3", "gpt4o", "gemma3", "mistral-v3", "j2-unigram", "supertoken")
LEFT_OUT = {"pocket": {"code_python"}}  # kinds that a model has read
METHODS = tuple(
    name for name, method in REGISTRY.items() if {*method.needs} <= {"space", "model"} and name != "classes"
)
DOCUMENT = 4096  # characters
WINDOW = 512  # tokens
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


class Bench:
    """One source model, one target tokenizer, tied or not: rows in, bits per byte out."""

    def __init__(self, model: str, target: str, untie: bool, texts: list[Text]) -> None:
        from transformers import AutoModelForCausalLM

        self.base = TransplantOptions(bench_path(model), bench_path(target), "unused", untie=untie)
        self.setting: Setting = prepare(self.base)
        self.texts = texts
        self.options = ScoreOptions(context=WINDOW, bos="never")
        self.old = AutoModelForCausalLM.from_pretrained(self.setting.checkpoint.folder, dtype=torch.float32).eval()
        self.new = AutoModelForCausalLM.from_pretrained(self.setting.checkpoint.folder, dtype=torch.float32).eval()
        self.where = Where(self.setting, self.old, WINDOW // 2)
        self.encoder = TextEncoder.of(self.setting.target_tokenizer)
        self.encoded: dict[str, Encoded] = {text.kind: self.encoder.encode(text.documents) for text in texts}

    def before(self) -> dict[str, float]:
        encoder = TextEncoder.of(self.setting.source_tokenizer)
        return {
            text.kind: score_encoded(self.old, encoder, encoder.encode(text.documents), self.options).bits_per_byte
            for text in self.texts
        }

    def forced(self) -> dict[str, float]:
        return {text.kind: self.where.forced(self.encoded[text.kind], text.nbytes) for text in self.texts}

    def job(self, method: str) -> Job:
        options = method_options(self.base, method)
        return Job(self.setting, options, choose(options, self.setting.roles), measure_overlap(self.setting))

    def swap(self, method: str) -> dict[str, float]:
        """Put the method's rows into the new model; what they cost."""
        job = self.job(method)
        with measured() as cost:  # with a source model of its own, so that none pays for another's texts
            made = make(job, source_model(self.setting, job.options), PlainProgress())
        tables = {
            one.role: torch.cat([block.float() for block in build_table(one.old, one.alignment, one.made, one.unused)])
            for one in made
        }
        for role, holder in (("input", self.new.get_input_embeddings()), ("output", self.new.get_output_embeddings())):
            holder.weight = torch.nn.Parameter(tables.get(role, tables["output"]), requires_grad=False)
        self.new.config.vocab_size = self.setting.rows
        return cost.plain()

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
            head = self.new.get_output_embeddings().weight
            found["perfect_states"] = {
                text.kind: self.where.perfect(head, text.kind, self.encoded[text.kind], text.nbytes)
                for text in self.texts
            }
        return found

    @cached_property
    def judge(self) -> Anchors:
        """Hidden old tokens and texts of the model's own: the same for all methods."""
        job = self.job("pieces")
        model = source_model(self.setting, job.options)
        return anchors_of(job, pose(job, model)[0], model, PlainProgress())

    def anchors(self, method: str) -> dict[str, float]:
        """Harm to hidden old tokens in bits per byte, by role."""
        job = self.job(method)
        judge = anchors_of(job, self.judge.problem, self.judge.model, PlainProgress()).sharing(self.judge)
        found = {}
        for problem in pose(job, judge.model, PlainProgress()):
            chosen = job.choice.methods[problem.role]
            posed = judge.pose(problem, str(chosen))
            made = finished(posed, make_rows(posed, chosen, job.choice.fallback), job.choice)
            role = "tied" if self.setting.tied else problem.role
            found[role] = float(judge.weigh(problem, made).harm.sum())
        return found


def mean(values: dict[str, float], kinds: Sequence[str]) -> float:
    return sum(values[kind] for kind in kinds) / len(kinds)


def run(args: argparse.Namespace, kept: dict[str, Any]) -> None:
    refuse_what_lacks(args.methods)
    every = read_texts(args.texts, args.kinds, args.kb)
    for model, target, untie in product(args.models, args.targets, args.untie):
        texts = [text for text in every if text.kind not in LEFT_OUT.get(model, ())]
        kinds = {text.kind for text in texts}
        key = f"{Path(model).name} {Path(target).name} {'untied' if untie else 'tied'} {args.kb}KB"
        entry = kept.setdefault(key, {"before": known_before(kept, model, args.kb, kinds), "methods": {}})
        missing = [one for one in args.methods if kinds - set(entry["methods"].get(one, {}).get("after", {}))]
        judged = [one for one in args.methods if args.anchors and "anchors" not in entry["methods"].get(one, {})]
        judged = [one for one in judged if can_be_scored(one)]
        cut = kinds - set(entry.get("forced", {})) if args.where else set()
        if missing or judged or cut or kinds - set(entry["before"]):
            bench = Bench(model, target, untie, texts)
            measure(Entry(key, entry, lambda: save(args.json, kept)), bench, args, missing, judged)


def known_before(kept: dict[str, Any], model: str, kb: int, kinds: set[str]) -> dict[str, float]:
    """The source's bits per byte, where another pair of the same model has them."""
    of_model = [key for key in kept if key.startswith(f"{Path(model).name} ") and key.endswith(f" {kb}KB")]
    found = next((kept[key]["before"] for key in of_model if kinds <= set(kept[key]["before"])), {})
    return {kind: found[kind] for kind in found if kind in kinds}


@dataclass(frozen=True)
class Entry:
    """What is known of one pair, and how to keep it."""

    key: str
    found: dict[str, Any]
    save: Callable[[], None]


def measure(entry: Entry, bench: Bench, args: argparse.Namespace, missing: list[str], judged: list[str]) -> None:
    found, kinds = entry.found, [text.kind for text in bench.texts]
    if set(kinds) - set(found["before"]):
        found["before"] = bench.before()
        entry.save()
    if args.where and set(kinds) - set(found.get("forced", {})):
        found["forced"] = bench.forced()
        entry.save()
    for method in args.methods:
        try:
            if method in missing:
                cost = bench.swap(method)
                found["methods"][method] = {**found["methods"].get(method, {}), **bench.after(args.where), **cost}
                entry.save()
                print(f"{entry.key}: {method}: excess {excess(found, method, kinds):.3f}, {cost}", flush=True)
            if method in judged:
                found["methods"][method]["anchors"] = bench.anchors(method)
                entry.save()
                print(f"{entry.key}: {method}: hidden {found['methods'][method]['anchors']}", flush=True)
        except TokenAdaptError as error:  # the others are still wanted
            print(f"{entry.key}: {method}: left out. {error.message} {error.hint}", file=sys.stderr, flush=True)


def show(kept: dict[str, Any]) -> None:
    for key, entry in kept.items():
        if not entry["methods"]:
            continue
        kinds = sorted(entry["before"])
        read = read_well(entry, kinds)
        drawn = Drawn(title=key, box=None, title_justify="left")
        for column in ("method", "mean", "excess", f"on {len(read)} readable", "new", "hidden", "s", "MB", *kinds):
            drawn.add_column(column, justify="left" if column == "method" else "right")
        before = entry["before"]
        drawn.add_row("(source)", f"{mean(before, kinds):.3f}", *[""] * 6, *(f"{before[kind]:.3f}" for kind in kinds))
        for method, one in sorted(entry["methods"].items(), key=lambda item: mean(item[1]["after"], kinds)):
            after = one["after"]
            cells = [f"{after[kind] - before[kind]:+.3f}" for kind in kinds]
            more = (f"{excess(entry, method, some):.3f}" for some in (kinds, read))
            share = f"{mean(one['new'], kinds):.3f}"
            costs = (hidden(one), f"{one['seconds']:.0f}", peak(one))
            figures = (f"{mean(after, kinds):.3f}", *more, share, *costs)
            drawn.add_row(method, *figures, *cells)
        console = Console(width=240, highlight=False)
        console.print(drawn)
        for method, one in entry["methods"].items():
            if "perfect_states" in one and "forced" in entry:
                figures = (mean(entry["forced"], kinds), mean(one["perfect_states"], kinds), mean(one["after"], kinds))
                console.print(f"  {method}: (a) {figures[0]:.3f}  (b) {figures[1]:.3f}  (c) {figures[2]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--kb", type=int, default=8)
    parser.add_argument("--untie", nargs="+", type=lambda word: word == "untied", default=[True], metavar="untied|tied")
    parser.add_argument("--anchors", action="store_true", help="also the harm to old tokens that are hidden")
    parser.add_argument("--where", action="store_true", help="also (a), (b) and (c)")
    parser.add_argument("--json", type=Path, default=Path("fidelity.json"))
    args = parser.parse_args()
    kept = json.loads(args.json.read_text(encoding="utf-8")) if args.json.exists() else {}
    run(args, kept)
    show(kept)


if __name__ == "__main__":
    main()
