"""Checkpoint and text to bits per byte: the same bytes for every model, each scored exactly once.

Two ways in. `evaluate(models, documents, options)` loads, scores and compares (`run.py`). For a model that is already
in memory, and is to be scored many times:

    encoder = TextEncoder.of(load_tokenizer(folder))           # or TextEncoder(backend, token_bytes, begin=id)
    encoded = encoder.encode([document.text for document in documents])
    scores = score_encoded(model, encoder, encoded, ScoreOptions(context=512))
    scores.bits_per_byte; scores.bits; scores.document_bits(); scores.document_bytes()

The road: options -> texts -> encode -> windows -> batches -> head -> score -> where, worst, per_token -> measures,
bootstrap -> result -> report.
"""

from tokenadapt.evaluation.encode import Encoded, TextEncoder
from tokenadapt.evaluation.head import Scorer
from tokenadapt.evaluation.options import EvalOptions, ScoreOptions
from tokenadapt.evaluation.result import EvalResult, ModelScore, Row
from tokenadapt.evaluation.run import evaluate
from tokenadapt.evaluation.score import Scores, score_documents, score_encoded

__all__ = [
    "Encoded", "EvalOptions", "EvalResult", "ModelScore", "Row", "ScoreOptions", "Scorer", "Scores", "TextEncoder",
    "evaluate", "score_documents", "score_encoded",
]  # fmt: skip
