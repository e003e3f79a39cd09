"""A comparison as tables: rows of cells for the terminal, Markdown for papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenadapt.evaluation.result import EvalResult, ModelScore, Row
from tokenadapt.evaluation.where import Part


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn; the first `left` columns hold words, the others figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        rule = ["---" if index < self.left else "---:" for index in range(len(self.columns))]
        lines = [self.columns, rule, *self.rows]
        drawn = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return f"**{self.title}**\n\n" + "\n".join(drawn)


def grids(result: EvalResult, *, where: bool = False) -> list[Grid]:
    """All tables of a comparison; `where` adds the splits by kind of byte and by place."""
    rows = result.rows()
    found = [_main(result, rows), _perplexities(result, rows)]
    if any(row.subset is not None for row in rows):
        found.append(_subsets(result, rows))
    splits = {"rows": "Loss by origin of the token's row"}
    if where:
        splits |= {"bytes": "Loss by kind of byte", "position": "Loss by distance from the document's start, in bytes"}
    for split, title in splits.items():
        if any(split in model.parts for model in result.models):
            found.append(_parts(title, split, result.models))
    return found + [_worst(model) for model in result.models if model.worst]


def as_markdown(result: EvalResult, *, where: bool = False) -> str:
    """The tables and what they were made under."""
    return "\n\n".join([*(grid.markdown() for grid in grids(result, where=where)), "\n".join(notes(result))])


def notes(result: EvalResult) -> list[str]:
    """What a reader of the tables must know."""
    texts, score = result.texts, result.options.score
    shared = int(result.shared.sum())
    lines = []
    if result.interrupted:
        lines.append(f"PARTIAL: interrupted; {shared:,} of {len(texts):,} documents are compared.")
    ending = "s" * (len(texts) > 1)
    lines.append(
        f"{len(texts):,} document{ending}, {int(texts.nbytes.sum()):,} bytes, {score.kind} models, "
        f"{score.windows} windows; reference tokenizer {result.reference}."
    )
    for model in result.models:
        facts = model.facts
        budget = f"{facts.get('context_bytes')} bytes" if facts.get("context_bytes") else f"{facts['context']} tokens"
        line = f"{model.name}: {facts['dtype']} on {facts['device']}, context {budget}, begin token {facts['begin']}"
        if strange := int((model.scored & ~model.exact).sum()):
            line += f"; its tokenizer does not give back {strange:,} of them (scored on what it made of it)"
        if clipped := facts.get("clipped_windows"):
            line += f"; {clipped} windows were cut to the model's {facts['positions']} positions"
        lines.append(line + ".")
    return lines


def _main(result: EvalResult, rows: Iterable[Row]) -> Grid:
    lines = []
    speed = {model.name: model for model in result.models}
    for row in (row for row in rows if row.subset is None):
        made, model = row.measures, speed[row.model]
        spent = model.seconds or math.nan
        lines.append(
            (
                row.model,
                f"{made.bits_per_byte:.4f}",
                _interval(row.interval, "{:.3f}"),
                "" if row.excess is None else f"{row.excess:+.4f}",
                _interval(row.excess_interval, "{:+.3f}"),
                f"{made.median_bits_per_byte:.4f}",
                f"{made.bytes_per_token:.3f}",
                _big(int(model.tokens[model.scored].sum()) / spent),
                _big(int(result.texts.nbytes[model.scored].sum()) / spent),
            )
        )
    columns = ("model", "bits/byte", "95%", "excess", "95%", "median", "bytes/token", "tokens/s", "bytes/s")
    return Grid("Bits per byte", columns, tuple(lines))


def _perplexities(result: EvalResult, rows: Iterable[Row]) -> Grid:
    lines = tuple(
        (
            row.model,
            f"{row.measures.bits_per_byte:.4f}",
            _big(row.measures.byte_perplexity),
            _big(row.measures.word_perplexity),
            _big(row.measures.reference_perplexity),
            _big(row.measures.token_perplexity),
            _big(row.measures.paper_perplexity),
            "" if row.paper_ratio is None else _big(row.paper_ratio),
        )
        for row in rows
        if row.subset is None
    )
    columns = ("model", "bits/byte", "per byte", "per word", "per reference token", "per own token", "paper", "ratio")
    return Grid(
        "Perplexities (per own token, and the paper's mean of it, compare with no other tokenizer)", columns, lines
    )


def _subsets(result: EvalResult, rows: Sequence[Row]) -> Grid:
    """One line per subset: the first model's figure, then figure, excess and interval of each other."""
    first, *others = (model.name for model in result.models)
    columns = ["subset", first]
    for name in others:
        columns += [name, "excess", "95%"]
    lines = []
    for subset in [*result.texts.labels, None]:
        by_model = {row.model: row for row in rows if row.subset == subset}
        cells = [subset or "all", f"{by_model[first].measures.bits_per_byte:.3f}"]
        for name in others:
            row = by_model[name]
            excess = math.nan if row.excess is None else row.excess
            cells += [f"{row.measures.bits_per_byte:.3f}", f"{excess:+.3f}", _interval(row.excess_interval, "{:+.3f}")]
        lines.append(tuple(cells))
    return Grid("Bits per byte by subset", tuple(columns), tuple(lines))


def _parts(title: str, split: str, models: Sequence[ModelScore]) -> Grid:
    lines = []
    for model in models:
        parts: tuple[Part, ...] = model.parts.get(split, ())
        bits, size = sum(part.bits for part in parts), sum(part.bytes for part in parts)
        for part in parts:
            share = f"{part.bytes / size:.1%}", f"{part.bits / bits:.1%}"
            tokens = "" if part.tokens is None else f"{part.tokens:,}"
            lines.append((model.name, part.name, tokens, *share, f"{part.bits_per_byte:.4f}"))
    columns = ("model", "part", "tokens", "of the bytes", "of the bits", "bits/byte")
    return Grid(title, columns, tuple(lines), left=2)


def _worst(model: ModelScore) -> Grid:
    lines = tuple(
        (
            "".join((token.example[0][-30:], "[", token.example[1], "]", token.example[2][:12])),
            token.token,
            token.how or "",
            str(token.id),
            f"{token.count:,}",
            f"{token.bits / token.count:.2f}",
            f"{token.excess_bits:.1f}",
        )
        for token in model.worst
    )
    columns = ("dearest place", "token", "row", "id", "count", "bits each", "bits above mean")
    return Grid(f"Worst tokens of {model.name}", columns, lines, left=3)


def _interval(pair: tuple[float, float], form: str) -> str:
    return "" if math.isnan(pair[0]) else f"{form.format(pair[0])} to {form.format(pair[1])}"


def _big(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.3f}" if value < 1000 else f"{value:,.0f}" if value < 1e9 else f"{value:.2e}"
