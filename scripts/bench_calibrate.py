"""What calibration brings, by objective, initialisation and what is trained: runs, table and picture.

    python scripts/bench_calibrate.py run --work DIR [--texts DIR] [--only stories15m] [--list]
    python scripts/bench_calibrate.py show --work DIR [--picture docs/calibration.svg]

Models and tokenizers come from --bench (or $TOKENADAPT_BENCH), texts from --texts: DIR/train/KIND.txt.gz to learn from
and DIR/eval/KIND.txt to measure on. Every run leaves a JSON file in DIR/runs, and a run whose file exists is not made
again, so that a machine with little time can go on later. `show` prints nothing but what those files say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

KINDS = {
    "english_wikitext2": "english_books",
    "code_python": "code_python",
    "german": "german",
    "math_latex": "math_latex",
}
MIX, DEFAULT_TRAIN = "default", "rows"
OBJECTIVES = ("hidden=1", "logits=1", "starts=1", "bytes=1", "attention=1", "text=1")
ADAMS_RATE = 0.03  # the best of 0.01, 0.03, 0.1 and 0.3 on stories15m
MEASUREMENTS = 8  # of held-out text on the way, in a long run


@dataclass(frozen=True)
class Pair:
    """A model and the tokenizer that it is given."""

    model: str
    tokenizer: str
    tokens: int
    options: dict[str, Any] = field(default_factory=dict)
    untie: bool = False


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    pair: str
    method: str
    objective: str
    train: str
    tokens: int
    closed_form: bool = True
    optimizer: str = "rows"

    @property
    def name(self) -> str:
        """A file's name."""
        closed, adam = "closed" if self.closed_form else "plain", ["adam"] if self.optimizer == "adam" else []
        parts = (self.pair, self.method, self.objective, self.train, self.tokens, closed, *adam)
        return "_".join(str(part).replace(":", "-").replace("=", "").replace(",", "+") for part in parts)


def pairs(long: bool) -> dict[str, Pair]:
    """What is measured: short on a CPU, long where there is a GPU."""
    own = {
        "self_generated": 1_500_000 if long else 400_000,
        "held_out_bytes": 32_768,
        "batch_tokens": 1024,
        "lora_rank": 32,
    }
    short = {"held_out_bytes": 6_000, "every": 8, "sample_bytes": 300_000, "batch_tokens": 1024}
    few, many = (2_000_000, 5_000_000) if long else (60_000, 8_192)
    return {
        "stories15m": Pair("stories15m", "own", few, own),
        "stories15m-untied": Pair("stories15m", "own", few, own, untie=True),
        "pocket": Pair("pocket", "own", few, {"held_out_bytes": 32_768}),
        "smollm2-qwen3": Pair("smollm2", "qwen3", many, {} if long else short),
        "smollm2-gemma3": Pair("smollm2", "gemma3", many, {} if long else short),
    }


def runs(name: str, pair: Pair) -> Iterator[Run]:
    """The default and the recipe that users have today; every objective alone, and other initialisations."""
    yield Run(name, "hybrid", MIX, "rows", pair.tokens)
    yield Run(name, "hybrid", MIX, "new", pair.tokens)
    yield Run(name, "hybrid", "text=1", "rows", pair.tokens, closed_form=False, optimizer="adam")  # the plain recipe
    if name.startswith("smollm2"):
        return
    yield Run(name, "hybrid", "text=1", "rows", pair.tokens, closed_form=False)
    yield Run(name, "hybrid", MIX, "rows", pair.tokens, closed_form=False)
    for objective in OBJECTIVES:
        yield Run(name, "hybrid", objective, "rows", pair.tokens)
    for method in ("learned", "pieces", *(["stacked:effort=low"] if pair.untie else [])):
        yield Run(name, method, MIX, "rows", pair.tokens)
    yield Run(name, "hybrid", MIX, "rows+lora", pair.tokens)


def make(run: Run, pair: Pair, arguments: argparse.Namespace) -> dict[str, Any]:
    """Transplant, calibrate, and say what came of it."""
    from tokenadapt.calibration.options import DEFAULT_OBJECTIVE, CalibrationOptions
    from tokenadapt.calibration.run import calibrate
    from tokenadapt.progress import PlainProgress

    folder = transplanted(run, pair, arguments)
    out = arguments.work / "out"
    data, held_out = texts(run.pair, arguments)
    unfinished, same = (arguments.work / ".out.calibration").exists(), same_run(arguments.work, run)
    told = calibrate(
        CalibrationOptions(
            str(folder),
            str(out),
            source=model_path(pair.model, arguments),
            data=data,
            held_out=held_out,
            objective=DEFAULT_OBJECTIVE if run.objective == MIX else run.objective,
            train=run.train,
            tokens=run.tokens,
            closed_form=run.closed_form,
            optimizer=run.optimizer,
            lr=ADAMS_RATE if run.optimizer == "adam" else None,
            every=pair.options.get("every", max(20, run.tokens // 1024 // MEASUREMENTS)),
            verify="tables",
            overwrite=True,
            resume=unfinished and same,
            restart=unfinished and not same,
            **{
                key: value
                for key, value in pair.options.items()
                if key != "every" and (key != "self_generated" or not data)
            },
        ),
        PlainProgress(),
    )
    if arguments.keep:
        kept = arguments.work / "results" / run.name
        kept.parent.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        out.rename(kept)
    else:
        shutil.rmtree(out)
    return {**asdict(run), "result": told.as_dict()}


def same_run(work: Path, run: Run) -> bool:
    """Whether the unfinished run that lies there is this one."""
    note = work / "running"
    same = note.is_file() and note.read_text() == run.name
    note.write_text(run.name)
    return same


def texts(name: str, arguments: argparse.Namespace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Text to learn from and to measure on; none for a model that writes its own."""
    if name.startswith("stories15m"):
        return (), ()
    if name == "pocket":
        library = Path(os.__file__).parent
        return (str(library / "[a-m]*.py"),), (str(library / "t[a-r]*.py"),)
    return (
        tuple(str(arguments.texts / "train" / f"{kind}.txt.gz") for kind in KINDS.values()),
        tuple(str(beginning(arguments, kind)) for kind in KINDS),
    )


def beginning(arguments: argparse.Namespace, kind: str) -> Path:
    """The first 1,500 bytes of an evaluation text: as much of each kind."""
    place: Path = arguments.work / "held_out" / f"{kind}.txt"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        raw = (arguments.texts / "eval" / f"{kind}.txt").read_bytes()[:1500]
        place.write_text(raw.decode(errors="ignore"), encoding="utf-8")
    return place


def model_path(model: str, arguments: argparse.Namespace) -> str:
    """Where a model is."""
    return model if model == "pocket" else str(arguments.bench / model)


def transplanted(run: Run, pair: Pair, arguments: argparse.Namespace) -> Path:
    """The checkpoint that is calibrated, made once."""
    from tokenadapt.recipe import TransplantOptions
    from tokenadapt.transplant import transplant

    folder: Path = arguments.work / "transplants" / f"{run.pair}_{run.method}".replace(":", "-").replace("=", "-")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = (
            arguments.work / "tokenizers" / pair.model if pair.tokenizer == "own" else arguments.bench / pair.tokenizer
        )
        if not tokenizer.exists():
            sys.exit(f"Train a tokenizer for {run.pair} first, and put it at {tokenizer} (tokenadapt train-tokenizer).")
        model = model_path(pair.model, arguments)
        options = TransplantOptions(
            model, str(tokenizer), str(folder), method=run.method, untie=pair.untie, verify="tables"
        )
        transplant(options)
    return folder


def show(work: Path, picture: Path | None) -> None:
    """The table, and the picture where it is wanted."""
    found = [json.loads(path.read_text()) for path in sorted((work / "runs").glob("*.json"))]
    order = {pair: number for number, pair in enumerate(pairs(False))}
    found.sort(key=lambda one: (order[one["pair"]], one["result"]["after"]))
    print("| pair | initialisation | objective | trained | tokens | minutes | start | closed form | end | left |")
    print("|" + " --- |" * 10)
    for one in found:
        told = one["result"]
        last, start, end = told["curve"][-1], told["before"] - told["source"], told["after"] - told["source"]
        closed = told["closed"].get("held out", {}).get("bits_per_byte")
        cells = [
            one["pair"],
            one["method"],
            label(one),
            one["train"],
            f"{last['tokens']:,}",
            f"{last['seconds'] / 60:.1f}",
        ]
        cells += [f"{start:+.4f}", f"{closed - told['source']:+.4f}" if closed is not None else "", f"{end:+.4f}"]
        print("| " + " | ".join([*cells, f"{end / start:.0%}"]) + " |")
    for pair in order:
        sources = {round(one["result"]["source"], 4) for one in found if one["pair"] == pair}
        if sources:
            print(f"\n{pair}: the source model has {', '.join(map(str, sorted(sources)))} bits per byte.")
    if picture:
        draw(found, picture)


def label(one: dict[str, Any]) -> str:
    """What a run is called in the table."""
    adam = one.get("optimizer", "adam") == "adam"  # the first runs knew no other
    default = one["objective"] == MIX and one["train"] == DEFAULT_TRAIN and one["closed_form"] and not adam
    return f"{one['result']['objective']}{', Adam' if adam else ''}{' (default)' if default else ''}"


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """Excess against tokens read, a panel for each pair."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tokenadapt"  # the same file from the same figures
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(one["pair"] for one in found))
    figure, panels = plt.subplots(1, len(names), figsize=(4.2 * len(names), 5.0), layout="constrained", squeeze=False)
    for axes, name in zip(panels[0], names, strict=True):
        for one in (one for one in found if one["pair"] == name and one["method"] == "hybrid"):
            told = one["result"]
            curve = [(point["tokens"] / 1000, point["bits_per_byte"] - told["source"]) for point in told["curve"]]
            closed = ", closed form first" if one["closed_form"] else ""
            axes.plot(*zip(*curve, strict=True), label=f"{label(one)}, {one['train']}{closed}", linewidth=1.2)
        if axes.get_xlim()[1] > 100:  # thousand: a long run stands beside short ones
            axes.set_xscale("symlog", linthresh=30)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlim(left=0)
        axes.set(title=name, xlabel="thousand tokens read", ylabel="held-out bits per byte above the source")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "show"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=Path)
    default = os.environ.get("TOKENADAPT_BENCH", str(Path.home() / ".cache" / "tokenadapt-bench"))
    parser.add_argument("--bench", type=Path, default=Path(default))
    parser.add_argument("--only", action="append", default=[], help="a part of a run's name; repeatable")
    parser.add_argument("--tokens", type=int, help="instead of the pair's own budget")
    parser.add_argument("--long", action="store_true", help="the budgets of a GPU")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints, in DIR/results")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "show":
        show(arguments.work, arguments.picture)
        return
    (arguments.work / "runs").mkdir(parents=True, exist_ok=True)
    for name, pair in pairs(arguments.long).items():
        for run in runs(name, replace(pair, tokens=arguments.tokens or pair.tokens)):
            place = arguments.work / "runs" / f"{run.name}.json"
            if not all(part in run.name for part in arguments.only) or place.exists():
                continue
            print(run.name, flush=True)
            if not arguments.list:
                place.write_text(json.dumps(make(run, pair, arguments), indent=1))


if __name__ == "__main__":
    main()
