"""A comparison kept as a file, with its per-document sums, so that a later run can stand beside it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tokenadapt.errors import RequestError
from tokenadapt.evaluation.options import EvalOptions, ScoreOptions
from tokenadapt.evaluation.report import SCHEMA, as_json
from tokenadapt.evaluation.result import EvalResult, ModelScore
from tokenadapt.evaluation.texts import Store, Texts
from tokenadapt.evaluation.where import Part
from tokenadapt.evaluation.worst import WorstToken


def save(result: EvalResult, path: Path) -> None:
    """Write the report with the sums of every document below `per_document`."""
    report = as_json(result)
    report["per_document"] = {
        "subset": list(result.texts.label),
        "bytes": result.texts.nbytes.tolist(),
        "words": result.texts.words.tolist(),
        "reference_tokens": result.reference_tokens.tolist(),
        "models": [
            {
                "bits": model.bits.tolist(),
                "tokens": model.tokens.tolist(),
                "exact": model.exact.tolist(),
                "scored": model.scored.tolist(),
                "seconds": model.seconds,
                "facts": model.facts,
            }
            for model in result.models
        ],
    }
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(report), encoding="utf-8")
    part.replace(path)


def read_saved(path: Path) -> EvalResult:
    """A saved run without its texts; RequestError where the file is no such run."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RequestError(f"The baseline {path} cannot be read: {error}.", "Name a file made with --save.") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "per_document" not in report:
        raise RequestError(f"{path} is no saved run of eval-ppl.", "Make it with --save FILE, not from --json output.")
    try:
        return _result(report)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(
            f"The baseline {path} is damaged ({type(error).__name__}: {error}).", "Make it again with --save."
        ) from error


def _result(report: dict[str, Any]) -> EvalResult:
    sums, options = report["per_document"], report["options"]
    texts = Texts(
        tuple(sums["subset"]),
        np.array(sums["bytes"], dtype=np.int64),
        np.array(sums["words"], dtype=np.int64),
        report["corpus"]["fingerprint"],
        Store(),
    )
    models = [
        ModelScore(
            shown["model"],
            kept["facts"],
            np.array(kept["bits"], dtype=np.float64),
            np.array(kept["tokens"], dtype=np.int64),
            np.array(kept["exact"], dtype=bool),
            np.array(kept["scored"], dtype=bool),
            kept["seconds"],
            {split: _parts(parts) for split, parts in shown["where"].items()},
            tuple(WorstToken(**token | {"example": tuple(token["example"])}) for token in shown["worst"]),
        )
        for shown, kept in zip(report["models"], sums["models"], strict=True)
    ]
    if any(len(model.bits) != len(texts) for model in models) or not models:
        raise ValueError("documents and sums differ in number")
    known = {field.name for field in fields(ScoreOptions)}
    score = ScoreOptions(**{name: value for name, value in options.items() if name in known})
    made = EvalOptions(score, bootstrap=options["bootstrap"], seed=options["seed"])
    reference = np.array(sums["reference_tokens"], dtype=np.int64)
    return EvalResult(texts, tuple(models), options["reference"], reference, made, 130 if report["partial"] else 0)


def _parts(shown: dict[str, Any]) -> tuple[Part, ...]:
    return tuple(Part(name, part["bits"], part["bytes"], part.get("tokens")) for name, part in shown.items())
