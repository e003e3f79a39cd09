"""What a run found: per-document truth for every model, from which every figure is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tokenadapt.evaluation.bootstrap import interval, resample
from tokenadapt.evaluation.measures import Measures, Sums, measure
from tokenadapt.evaluation.options import EvalOptions
from tokenadapt.evaluation.texts import Texts
from tokenadapt.evaluation.where import Part
from tokenadapt.evaluation.worst import WorstToken

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NONE: Final = (float("nan"), float("nan"))


@dataclass(frozen=True)
class ModelScore:
    """One model's sums over each document; `scored` is False where an interrupted run did not come."""

    name: str
    facts: dict[str, object]  # path, dtype, device, context, begin token, ...
    bits: Floats  # (documents,)
    tokens: Ints
    exact: NDArray[np.bool_]  # the tokenizer gives the document back
    scored: NDArray[np.bool_]
    seconds: float = 0.0
    parts: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    worst: tuple[WorstToken, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every document was scored."""
        return bool(self.scored.all())


@dataclass(frozen=True)
class Row:
    """One model on one subset (None: everything), beside the first model."""

    model: str
    subset: str | None
    measures: Measures
    interval: tuple[float, float] = NONE  # 95%, of bits per byte
    excess: float | None = None  # bits per byte above the first model's
    excess_interval: tuple[float, float] = NONE
    paper_ratio: float | None = None  # paper perplexity over the first model's


@dataclass(frozen=True)
class EvalResult:
    """A finished or interrupted comparison; `interrupted` is the exit code that a signal asks for."""

    texts: Texts
    models: tuple[ModelScore, ...]
    reference: str
    reference_tokens: Ints
    options: EvalOptions
    interrupted: int = 0

    @property
    def shared(self) -> NDArray[np.bool_]:
        """Documents that every model has scored: what is compared."""
        return np.asarray(np.stack([model.scored for model in self.models]).all(axis=0))

    def sums(self, model: ModelScore, subset: str | None) -> Sums:
        """Per-document sums of a subset's documents that all models have scored."""
        which = self.texts.of(subset)
        which = which[self.shared[which]]
        texts = self.texts
        return Sums(model.bits, model.tokens, texts.nbytes, texts.words, self.reference_tokens).take(which)

    def rows(self) -> list[Row]:
        """Every model on everything, then on each subset, in the order given."""
        found = []
        subsets: list[str | None] = [None, *self.texts.labels] if len(self.texts.labels) > 1 else [None]
        for number, subset in enumerate(subsets):
            sums = [self.sums(model, subset) for model in self.models]
            drawn = self._drawn(sums, number)
            for index, model in enumerate(self.models):
                found.append(self._row(model, subset, [measure(one) for one in (sums[0], sums[index])], drawn, index))
        return found

    def _drawn(self, sums: list[Sums], number: int) -> Floats | None:
        if not self.options.bootstrap or len(sums[0].bits) < 2:
            return None
        stacked = np.stack([one.bits for one in sums])
        return resample(stacked, sums[0].nbytes, self.options.bootstrap, self.options.seed + number)

    def _row(
        self, model: ModelScore, subset: str | None, pair: list[Measures], drawn: Floats | None, index: int
    ) -> Row:
        base, own = pair
        if index == 0:
            return Row(model.name, subset, own, NONE if drawn is None else interval(drawn[0]))
        return Row(
            model.name,
            subset,
            own,
            NONE if drawn is None else interval(drawn[index]),
            own.bits_per_byte - base.bits_per_byte,
            NONE if drawn is None else interval(drawn[index] - drawn[0]),
            own.paper_perplexity / base.paper_perplexity if base.paper_perplexity else None,
        )
