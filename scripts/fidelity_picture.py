"""The picture of the fidelity tables: methods by target, a panel for each model, tied or not, and length of text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLAIN = "pieces"  # the method that the others are coloured against
FAR = 0.6  # bits per byte from it at which the colour is full

Figures = dict[str, dict[str, float]]  # method -> target -> excess


def panels(found: dict[str, Any], excess: Callable[[dict[str, Any], str], float]) -> dict[str, Figures]:
    """The figures by panel: those of one model, one number of tables and one length of text stand together."""
    by_panel: dict[str, Figures] = {}
    for key, entry in found.items():
        model, target, *how = key.split()
        figures = by_panel.setdefault(" ".join((model, *how)), {})
        for method in entry["methods"]:
            figures.setdefault(method, {})[target] = excess(entry, method)
    return by_panel


def ranked(figures: Figures) -> list[str]:
    """Methods with the least excess first: by the mean difference to PLAIN over the targets that both have."""
    plain = figures.get(PLAIN, {})

    def difference(method: str) -> float:
        both = [value - plain[target] for target, value in figures[method].items() if target in plain]
        return sum(both) / len(both) if both else sum(figures[method].values()) / len(figures[method])

    return sorted(figures, key=difference)


def short(method: str) -> str:
    """A method's name without the folders of the files that it was given."""
    return re.sub(r"(?<==)[^,+]*/", "", method)


def picture(by_panel: dict[str, Figures], path: Path) -> None:
    """Draw the panels, one above the other; what was not measured stays empty."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tokenadapt"  # the same file from the same figures
    from matplotlib import pyplot as plt

    heights = [len(figures) + 3 for figures in by_panel.values()]
    size = (9.5, 0.27 * sum(heights))
    figure, axes = plt.subplots(
        len(by_panel), 1, figsize=size, height_ratios=heights, layout="constrained", squeeze=False
    )
    for axis, (name, figures) in zip(axes[:, 0], by_panel.items(), strict=True):
        rows = ranked(figures)
        columns = list(dict.fromkeys(target for row in figures.values() for target in row))
        value = np.array([[figures[row].get(column, np.nan) for column in columns] for row in rows])
        plain = np.array([figures.get(PLAIN, {}).get(column, np.nan) for column in columns])
        axis.imshow(value - plain, cmap="RdBu_r", vmin=-FAR, vmax=FAR, aspect="auto")
        for row, column in np.argwhere(~np.isnan(value)):
            dark = abs(value[row, column] - plain[column]) > 0.7 * FAR
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": "white" if dark else "black"}
            axis.text(column, row, f"{value[row, column]:.2f}", style)
        axis.set_xticks(range(len(columns)), columns, fontsize=8)
        axis.set_yticks(range(len(rows)), map(short, rows), fontsize=8)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.set_title(f"{name}: excess in bits per byte (blue: less than {PLAIN})", loc="left", fontsize=10)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
