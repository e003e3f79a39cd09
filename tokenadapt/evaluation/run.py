"""Models and documents to a comparison: the stages in order.

result = evaluate(["smollm2", "smollm2-qwen3"], read_corpus(["texts/"]), EvalOptions())
for row in result.rows():
print(row.model, row.subset, row.measures.bits_per_byte, row.excess)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tokenadapt.errors import RequestError, Terminated, TokenAdaptError
from tokenadapt.evaluation.encode import TextEncoder
from tokenadapt.evaluation.head import Scorer
from tokenadapt.evaluation.load import Subject, load_subject
from tokenadapt.evaluation.options import DEFAULT_CONTEXT, EvalOptions
from tokenadapt.evaluation.per_token import PerToken
from tokenadapt.evaluation.ranks import Ranks
from tokenadapt.evaluation.result import EvalResult, Ints, ModelScore
from tokenadapt.evaluation.score import Scores, model_positions, score_encoded
from tokenadapt.evaluation.texts import Labelled, Texts, keep
from tokenadapt.evaluation.where import ROWS, Part, Splits
from tokenadapt.evaluation.worst import Tally, WorstToken
from tokenadapt.progress import SILENT, Advance, Progress
from tokenadapt.vocab.types import How


def evaluate(
    models: Sequence[str],
    documents: Iterable[Labelled],
    options: EvalOptions = EvalOptions(),  # noqa: B008  # frozen
    *,
    baseline: EvalResult | None = None,
    ranks: Ranks = Ranks(),  # noqa: B008  # frozen
    progress: Progress = SILENT,
) -> EvalResult:
    """Score every model on the same documents; each model is loaded, scored and let go in turn.

    `baseline`, read from a saved run, stands before the models as the first. Ctrl-C and SIGTERM end the run early:
    the result says so in `interrupted`, and compares what all models have scored. Raises RequestError and
    TokenAdaptError.
    """
    if not models:
        raise RequestError("No model was named.", "Name one or more model folders or Hub ids.")
    texts = documents if isinstance(documents, Texts) else keep(documents)
    if baseline is not None:
        check_baseline(baseline, texts, options)
    found, interrupted = list(baseline.models) if baseline else [], 0
    names = short_names(models, [model.name for model in found])
    with PerToken(options.per_token if ranks.first else None) as rows:
        for name, spec in zip(names, models, strict=True):
            run = _Run(name, texts, options, ranks, progress)
            try:
                run.score(load_together(spec, options, ranks), rows)
            except KeyboardInterrupt as stop:
                if not run.scored.any() and not found:
                    raise  # nothing to show
                interrupted = 143 if isinstance(stop, Terminated) else 130
                rows.drop()
            if run.scored.any():
                found.append(run.result())
            if interrupted:
                break
    counts = _reference_tokens(options, texts) if options.reference else found[0].tokens
    return EvalResult(texts, tuple(found), options.reference or found[0].name, counts, options, interrupted)


class _Run:
    """One model over all pools; what it holds when it is interrupted is a partial result."""

    def __init__(self, name: str, texts: Texts, options: EvalOptions, ranks: Ranks, progress: Progress) -> None:
        self.name, self.texts, self.options, self.ranks, self.progress = name, texts, options, ranks, progress
        self.facts: dict[str, object] = {}
        self.bits, self.tokens = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        self.exact, self.scored = np.zeros(len(texts), dtype=bool), np.zeros(len(texts), dtype=bool)
        self.seconds, self.clipped = 0.0, 0
        self.parts: dict[str, tuple[Part, ...]] = {}
        self.worst: tuple[WorstToken, ...] = ()

    def result(self) -> ModelScore:
        """What was found so far."""
        return ModelScore(
            self.name, self.facts, self.bits, self.tokens, self.exact, self.scored, self.seconds, self.parts, self.worst
        )

    def score(self, subject: Subject, rows: PerToken) -> None:
        """Score all pools, then read the splits out, as far as they came."""
        scoring = self.options.score
        scorer = Scorer(subject.model, head_bytes=scoring.head_bytes, masked=scoring.kind == "masked")
        self.facts = _facts(subject, self.options)
        splits, tally = Splits(subject.how), Tally(max(scorer.vocab, len(subject.encoder.token_bytes)))
        origins = None if subject.how is None else [ROWS[How(code)] for code in subject.how.tolist()]
        total = int(self.texts.nbytes.sum()) / self.ranks.size
        try:
            with self.progress.stage(f"score {self.name}", total=total, unit="bytes") as advance:
                for pool in self.texts.pools():
                    strings = [self.texts.text(index) for index in pool]
                    scores = self._pool(scorer, subject.encoder, pool, strings, advance)
                    splits.add(strings, scores.encoded, scores.bits)
                    tally.add(pool, scores.encoded, scores.bits)
                    rows.add(self.name, self.texts, pool, scores, origins)
        finally:
            self.parts = splits.parts()
            self.worst = tally.worst(self.options.worst, self.texts, subject.encoder.token_bytes, origins)
            if self.clipped:
                self.facts["clipped_windows"] = self.clipped

    def _pool(self, scorer: Scorer, encoder: TextEncoder, pool: range, strings: list[str], advance: Advance) -> Scores:
        """Score one pool together with the other processes, and note its documents' sums."""
        began = time.perf_counter()
        encoded = encoder.encode(strings)
        bits = np.full(len(encoded.ids), np.nan) if self.ranks.size == 1 else np.zeros(len(encoded.ids))
        share, error, options = (self.ranks.rank, self.ranks.size), None, self.options.score
        try:
            scores = score_encoded(scorer, encoder, encoded, options, share=share, into=bits, advance=advance)
            self.clipped += scores.clipped
        except TokenAdaptError as problem:
            error = problem
        except KeyboardInterrupt:
            if self.ranks.size == 1:
                self._note(pool, Scores(encoded, bits), time.perf_counter() - began)
            raise
        self.ranks.agree(error)
        scores = Scores(encoded, self.ranks.add(bits))
        self._note(pool, scores, time.perf_counter() - began)
        return scores

    def _note(self, pool: range, scores: Scores, seconds: float) -> None:
        bits = scores.document_bits()
        whole = np.isfinite(bits)
        where = slice(pool.start, pool.stop)
        self.bits[where] = np.where(whole, bits, 0.0)
        self.tokens[where] = np.diff(scores.encoded.start)
        self.exact[where], self.scored[where] = scores.encoded.exact, whole
        self.seconds += seconds


def load_together(spec: str, options: EvalOptions, ranks: Ranks) -> Subject:
    """Load a model on every process; where one cannot, all stop."""
    subject, error = None, None
    try:
        subject = load_subject(spec, options, ranks.local)
    except TokenAdaptError as problem:
        error = problem
    ranks.agree(error)
    assert subject is not None
    return subject


def short_names(specs: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The last part of each path, with a number where it is not the only one."""
    names: list[str] = []
    for spec in specs:
        base = name = Path(spec).name or spec
        number = 1
        while name in names or name in taken:
            number += 1
            name = f"{base} ({number})"
        names.append(name)
    return names


def check_baseline(baseline: EvalResult, texts: Texts, options: EvalOptions) -> None:
    """Refuse a saved run that was made on other documents or under other rules."""
    if baseline.texts.fingerprint != texts.fingerprint:
        raise RequestError(
            f"The baseline was made on other documents ({len(baseline.texts)} of {int(baseline.texts.nbytes.sum())} "
            f"bytes; here {len(texts)} of {int(texts.nbytes.sum())} bytes).",
            "Give the same corpora, columns, limits and seed, or score the first model again.",
        )
    then, now = baseline.options.score.rule(), options.score.rule()
    for name, value in now.items():
        if then[name] != value:
            raise RequestError(
                f"The baseline was made with {name} {then[name]}, and this run has {value}.",
                "Use the same windows, context and begin-token policy, or score the first model again.",
            )


def _reference_tokens(options: EvalOptions, texts: Texts) -> Ints:
    """Tokens of each document in the reference tokenizer."""
    from tokenadapt.vocab.load import load_tokenizer

    assert options.reference is not None
    encoder = TextEncoder(load_tokenizer(options.reference).backend, ())
    counts = [np.diff(encoder.encode([texts.text(index) for index in pool]).start) for pool in texts.pools()]
    return np.concatenate(counts)


def _facts(subject: Subject, options: EvalOptions) -> dict[str, object]:
    """What a reader must know about how this model was scored."""
    score = options.score
    positions = model_positions(subject.model)
    prefix, _ = subject.encoder.frame(score.bos, score.kind)
    spelled = [subject.encoder.backend.id_to_token(token) for token in prefix]
    first = "first window" if score.windows == "disjoint" else "every window"
    return {
        "spec": subject.spec,
        "dtype": subject.dtype,
        "device": subject.device,
        "positions": positions if positions < 1 << 30 else None,
        "context": None if score.context_bytes else score.context or min(positions, DEFAULT_CONTEXT),
        "context_bytes": score.context_bytes,
        "begin": f"{' '.join(spelled)} before {first}" if prefix else "none",
        "transplanted": subject.how is not None,
    }
