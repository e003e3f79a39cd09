"""The curve of a run as a picture beside its result."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tokenadapt.calibration.outcome import Calibrated

FILE: Final = "calibration.png"


def draw_curve(told: Calibrated, path: Path) -> bool:
    """Held-out bits per byte against tokens read; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([point.tokens for point in told.curve], [point.bits_per_byte for point in told.curve], marker=".")
    axes.plot(told.best.tokens, told.best.bits_per_byte, "o", fillstyle="none", label="kept")
    axes.axhline(told.source, color="black", linewidth=0.8, label="source model")
    axes.axhline(told.before, color="grey", linewidth=0.8, linestyle=":", label="before")
    axes.set_xlabel("tokens read")
    axes.set_ylabel("held-out bits per byte")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": "tokenadapt"})
    return True
