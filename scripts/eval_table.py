"""The table and the picture of docs/evaluation.md, from runs that eval-ppl has saved.

    tokenadapt eval-ppl smollm2 -d TEXTS --save base.json
    tokenadapt eval-ppl smollm2-qwen3 -d TEXTS --save qwen3.json
    python scripts/eval_table.py base.json qwen3.json [--picture docs/evaluation.svg]

Scoring on a CPU takes long: models are scored one by one, wherever there is time, and set beside each other here. All
runs must be over the same documents and under the same rules; the first is what the others are compared with.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tokenadapt.errors import RequestError
from tokenadapt.evaluation import EvalResult, Row
from tokenadapt.evaluation.markdown import as_markdown
from tokenadapt.evaluation.run import check_baseline, short_names
from tokenadapt.evaluation.saved import read_saved


def joined(paths: list[Path]) -> EvalResult:
    """All models of all runs as one comparison."""
    first, *others = (read_saved(path) for path in paths)
    for other in others:
        check_baseline(other, first.texts, first.options)
    models = [model for run in (first, *others) for model in run.models]
    names = short_names([model.name for model in models])
    return replace(first, models=tuple(replace(one, name=name) for one, name in zip(models, names, strict=True)))


def picture(rows: list[Row], path: Path) -> None:
    """Excess by subset, a group of bars for each, with its 95% interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tokenadapt"  # the same file from the same figures
    from matplotlib import pyplot as plt

    models = list(dict.fromkeys(row.model for row in rows if row.excess is not None))
    found = {(row.model, row.subset): row for row in rows}
    subsets = sorted(
        {row.subset for row in rows if row.subset is not None}, key=lambda name: found[models[0], name].excess or 0.0
    )
    figure, axes = plt.subplots(figsize=(7.5, 0.45 * len(subsets) + 1.2), layout="constrained")
    height = 0.8 / len(models)
    for place, model in enumerate(models):
        chosen = [found[model, subset] for subset in subsets]
        excess = [row.excess or 0.0 for row in chosen]
        error = [[value - row.excess_interval[0] for value, row in zip(excess, chosen, strict=True)],
                 [row.excess_interval[1] - value for value, row in zip(excess, chosen, strict=True)]]  # fmt: skip
        at = [index + (place - (len(models) - 1) / 2) * height for index in range(len(subsets))]
        axes.barh(at, excess, height, xerr=error, label=model, error_kw={"elinewidth": 0.8})
    axes.set_yticks(range(len(subsets)), [str(subset) for subset in subsets])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"bits per byte above {rows[0].model} (bars: 95% over documents)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    try:
        result = joined(arguments.runs)
    except RequestError as error:
        sys.exit(str(error))
    print(as_markdown(result))
    if arguments.picture:
        picture(result.rows(), arguments.picture)


if __name__ == "__main__":
    main()
