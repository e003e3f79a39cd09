"""The closing table of scripts/demo: what changed between `pocket` and the model with the new tokenizer.

.venv/bin/python scripts/demo_table.py build/demo
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenadapt.cli.session import table
from tokenadapt.locate import locate


def size(folder: Path) -> str:
    """What the weights take."""
    return f"{sum(path.stat().st_size for path in folder.glob('*.safetensors')) / 1e6:.1f} MB"


def rows(out: Path) -> Iterator[tuple[str, str, str, str]]:
    """What, before, after, change; the same text on both sides."""
    before, after = json.loads((out / "figures.json").read_text(encoding="utf-8"))["models"]
    change = 100 * (after["tokens"] / before["tokens"] - 1)
    yield "tokens for the text", f"{before['tokens']:,}", f"{after['tokens']:,}", f"{change:+.1f} %"
    lengths = [model["bytes"] / model["tokens"] for model in (before, after)]
    yield "bytes per token", *(f"{length:.2f}" for length in lengths), f"{lengths[1] - lengths[0]:+.2f}"
    bits = [model["bits_per_byte"] for model in (before, after)]
    yield "bits per byte (lower is better)", *(f"{figure:.3f}" for figure in bits), f"{bits[1] - bits[0]:+.3f} (excess)"
    folders = [locate("pocket", "model"), out / "model"]
    sizes = [json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"] for folder in folders]
    yield "vocabulary", *(f"{count:,}" for count in sizes), f"{sizes[1] - sizes[0]:+,}"
    yield "weights", *(size(folder) for folder in folders), ""


def main() -> None:
    out = Path(sys.argv[1])
    print()
    table("What changed, on text that neither the model nor the tokenizer was trained on",
          ("", "pocket", "with the new tokenizer", "change"), rows(out), right=(1, 2, 3))  # fmt: skip
    print(f"\nThe model is in {out / 'model'}: its README.md says how to load it, `tokenadapt verify` checks it.")
    print("No step of training was taken after the swap: the excess is what the new rows cost until one is.")


if __name__ == "__main__":
    main()
