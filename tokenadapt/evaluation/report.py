"""A comparison as JSON for programs; the schema is in docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from tokenadapt.evaluation.measures import finite
from tokenadapt.evaluation.result import EvalResult, ModelScore, Row

SCHEMA: Final = "tokenadapt.eval/1"


def as_json(result: EvalResult) -> dict[str, Any]:
    """The whole result; `bits_per_byte` at the top is the first model's."""
    rows = result.rows()
    models = [_model(result, model, [row for row in rows if row.model == model.name]) for model in result.models]
    return {
        "schema": SCHEMA,
        "bits_per_byte": models[0]["bits_per_byte"],
        "partial": bool(result.interrupted),
        "corpus": {
            "documents": len(result.texts),
            "bytes": int(result.texts.nbytes.sum()),
            "words": int(result.texts.words.sum()),
            "subsets": {label: len(result.texts.of(label)) for label in result.texts.labels},
            "fingerprint": result.texts.fingerprint,
        },
        "options": {
            **result.options.score.rule(),
            "reference": result.reference,
            "bootstrap": result.options.bootstrap,
            "seed": result.options.seed,
        },
        "models": models,
    }


def _model(result: EvalResult, model: ModelScore, rows: Sequence[Row]) -> dict[str, Any]:
    size = int(result.texts.nbytes[model.scored].sum())
    tokens = int(model.tokens[model.scored].sum())
    spent = model.seconds or float("nan")
    return {
        "model": model.name,
        **_row(rows[0]),
        "tokens_per_second": finite(tokens / spent),
        "bytes_per_second": finite(size / spent),
        "documents_scored": int(model.scored.sum()),
        "documents_not_round_tripped": int((model.scored & ~model.exact).sum()),
        **{name: value for name, value in model.facts.items() if value is not None},
        "subsets": {str(row.subset): _row(row) for row in rows[1:]},
        "where": {
            split: {
                part.name: {
                    "bits": part.bits,
                    "bytes": part.bytes,
                    "bits_per_byte": finite(part.bits_per_byte),
                    **({} if part.tokens is None else {"tokens": part.tokens}),
                }
                for part in parts
            }
            for split, parts in model.parts.items()
        },
        "worst": [asdict(token) for token in model.worst],
    }


def _row(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {**row.measures.as_dict(), "interval": _pair(row.interval)}
    if row.excess is not None:
        found["excess"] = finite(row.excess)
        found["excess_interval"] = _pair(row.excess_interval)
        found["paper_ratio"] = None if row.paper_ratio is None else finite(row.paper_ratio)
    return found


def _pair(values: tuple[float, float]) -> list[float] | None:
    return list(values) if all(finite(value) is not None for value in values) else None
