"""The tables and the picture of docs/methods.md, from what bench_fidelity.py has kept.

    python scripts/fidelity_page.py docs/fidelity.json [MORE.json ...] [--keep docs/fidelity.json]
        [--page docs/methods.md] [--picture docs/methods.svg]

docs/fidelity.json holds every figure of the page; a new run is added to it. With --page the tables replace what stands
between the marks `<!-- table -->` and `<!-- /table -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from fidelity_picture import panels, picture

READABLE = 1.6  # source bits per byte under which a model is said to read a kind
MARKS = ("<!-- table -->", "<!-- /table -->")


def read(paths: list[Path]) -> dict[str, Any]:
    """All runs as one; of a method measured twice under one heading the later file counts."""
    found: dict[str, Any] = {}
    for path in paths:
        for key, entry in json.loads(path.read_text(encoding="utf-8")).items():
            into = found.setdefault(key, {"before": entry["before"], "methods": {}})
            for method, one in entry["methods"].items():
                into["methods"][method] = {**into["methods"].get(method, {}), **one}
            if entry.get("forced"):
                into["forced"] = entry["forced"]
    return found


def beyond(entry: dict[str, Any], bits: dict[str, float], kinds: list[str]) -> float:
    """Mean over some kinds of what bits per byte are more than the source's."""
    return sum(bits[kind] - entry["before"][kind] for kind in kinds) / len(kinds)


def excess(entry: dict[str, Any], method: str, kinds: list[str] | None = None) -> float:
    """A method's bits per byte more than the source's: mean over some kinds, or over all."""
    return beyond(entry, entry["methods"][method]["after"], kinds or list(entry["before"]))


def read_well(entry: dict[str, Any], kinds: list[str]) -> list[str]:
    """The kinds that the source reads; all, where it reads none."""
    return [kind for kind in kinds if entry["before"][kind] < READABLE] or kinds


def ranked(entry: dict[str, Any]) -> list[str]:
    return sorted(entry["methods"], key=lambda method: excess(entry, method))


def peak(one: dict[str, Any]) -> str:
    """Megabytes that making the rows took beyond what was held before."""
    return f"{one['peak_mb']:,.0f}" if "peak_mb" in one else ""


def hidden(one: dict[str, Any]) -> str:
    """Harm to hidden old tokens: of input and of output rows, or of the one table."""
    harm = one.get("anchors", {})
    return " / ".join(f"{harm[role]:.3f}" for role in ("input", "output", "tied") if role in harm)


def cuts(entry: dict[str, Any], kinds: list[str], known: list[str]) -> str:
    """What the source loses when it reads the same texts as the pieces of the target's tokens."""
    if "forced" not in entry:
        return ""
    every, some = (beyond(entry, entry["forced"], these) for these in (kinds, known))
    return f"; in the target's cuts {every:+.3f}, where it reads {some:+.3f}"


def table(key: str, entry: dict[str, Any]) -> str:
    kinds = list(entry["before"])
    known = read_well(entry, kinds)
    before = sum(entry["before"].values()) / len(kinds)
    more = {"MB": peak, "hidden tokens, input / output": hidden}
    shown = {name: cell for name, cell in more.items() if any(map(cell, entry["methods"].values()))}
    names = (
        "method",
        "excess",
        f"on {len(known)} kind{'s'[: len(known) > 1]} that the source reads",
        "on copied tokens",
        "on new tokens",
    )
    names = (*names, "worst kind", "seconds", *shown)
    lines = [
        f"<details{' open' * (' untied ' in key and not key.startswith('pocket '))}>",
        f"<summary><b>{key}</b> (source: {before:.3f} bits per byte, {len(kinds)} kind{'s'[: len(kinds) > 1]} of text"
        f"{cuts(entry, kinds, known)})</summary>",
        "",
        f"| {' | '.join(names)} |",
        f"| {' | '.join('---' if name in ('method', 'worst kind') else '---:' for name in names)} |",
    ]
    for method in ranked(entry):
        one = entry["methods"][method]
        worst = max(kinds, key=lambda kind: one["after"][kind] - entry["before"][kind])
        new, copied = (sum(one[part][kind] for kind in kinds) / len(kinds) for part in ("new", "copied"))
        cells = (
            f"`{method}`",
            f"{excess(entry, method, kinds):.3f}",
            f"{excess(entry, method, known):.3f}",
            f"{copied:.3f}",
            f"{new:.3f}",
            f"{worst} {one['after'][worst] - entry['before'][worst]:+.2f}",
            f"{one['seconds']:.0f}",
            *(cell(one) for cell in shown.values()),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "</details>"])


def by_panel(found: dict[str, Any]) -> list[str]:
    """Headings, those of one model, one number of tables and one length of text together, as they first came."""
    panel = {key: (key.split()[0], *key.split()[2:]) for key in found}
    first = list(dict.fromkeys(panel.values()))
    return sorted(found, key=lambda key: first.index(panel[key]))


def keep(found: dict[str, Any], path: Path) -> None:
    """Write what is known as one file, to four decimals: what later runs add to."""
    save(path, json.loads(json.dumps(found), parse_float=_four))


def save(path: Path, found: dict[str, Any]) -> None:
    """Write figures whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _four(digits: str) -> float:
    return round(float(digits), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path, help="write all figures together here")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    found = read(arguments.runs)
    text = "\n\n".join(table(key, found[key]) for key in by_panel(found))
    if arguments.page:
        page = arguments.page.read_text(encoding="utf-8")
        between = re.compile(f"(?<={MARKS[0]}\n).*(?={MARKS[1]})", re.DOTALL)
        arguments.page.write_text(between.sub(lambda _: f"\n{text}\n\n", page), encoding="utf-8")
    else:
        print(text)
    if arguments.picture:
        picture(panels(found, excess), arguments.picture)
    if arguments.keep:
        keep(found, arguments.keep)


if __name__ == "__main__":
    main()
