"""What may be typed after --methods of bench_fidelity.py, and where its names are found.

    METHOD[:key=value,...][>OUTPUT-METHOD[:...]][@SPACE][+norm][+bias=X][+donor=MODEL][+corpus=FILE ...]

or the name of a recipe. Models, tokenizers, vectors and texts are paths, or names below $TOKENADAPT_BENCH.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tokenadapt.choice import Choice, choose
from tokenadapt.methods import Chosen, parse_method
from tokenadapt.methods.within import needs_of
from tokenadapt.needs import check_needs
from tokenadapt.recipe import TransplantOptions, read_recipe, shipped, with_recipe

AFTER = re.compile(r"\+(?=norm(?:$|[+@])|(?:bias|donor|corpus)=)")  # other + stand inside a method's own options


def bench_path(name: str) -> str:
    if name == "pocket" or os.path.exists(name):
        return name
    home = Path(os.environ.get("TOKENADAPT_BENCH", Path.home() / ".cache" / "tokenadapt-bench"))
    return str(home / name)


def bench_space(space: str) -> str:
    kind, _, name = space.partition(":")
    return f"{kind}:{bench_path(name)}" if name and kind in ("hf", "st", "static") else space


def method_options(base: TransplantOptions, text: str) -> TransplantOptions:
    if text in shipped():
        return with_recipe(base, read_recipe(text), frozenset({"model", "tokenizer", "output", "untie"}))
    rule, *after = (part.partition("@") for part in AFTER.split(text))
    spaces = [space for _, _, space in (rule, *after) if space]
    method, _, output = rule[0].partition(">")
    given = [part for part, _, _ in after]

    def named(key: str) -> list[str]:
        return [part.partition("=")[2] for part in given if part.startswith(f"{key}=")]

    return dataclasses.replace(
        base,
        method=_found(method),
        output_method=_found(output) if output else None,
        space=bench_space(spaces[0]) if spaces else base.space,
        calibrate_norm="norm" in given,
        bias_per_piece=float(next(iter(named("bias")), 0.0)),
        donor=next(map(bench_path, named("donor")), base.donor),
        corpus=tuple(map(bench_path, named("corpus"))) or base.corpus,
    )


def _found(method: str) -> str:
    """The method with the files that its options name."""
    chosen = parse_method(method)
    options = {
        key: bench_path(str(value)) if isinstance(value, Path) else value for key, value in chosen.options.items()
    }
    return str(Chosen(chosen.name, options))


def can_be_scored(text: str) -> bool:
    """Whether hidden tokens can judge it: a donor has no rows for most of them, and auto is judged as what it takes."""
    chosen = _choice(text)[0].methods.values()
    return not any("donor" in needs_of(each) or each.name == "auto" for each in chosen)


def refuse_what_lacks(texts: Sequence[str]) -> None:
    """Raise RequestError for a method without what it needs, before hours of others."""
    for text in texts:
        check_needs(*_choice(text))


def _choice(text: str) -> tuple[Choice, TransplantOptions]:
    options = method_options(TransplantOptions("model", "tokenizer", "output"), text)
    return choose(options, ("input", "output")), options
