"""Documents to bits, token by token, under one loaded model: what programs call that score in memory and often.

    encoder = TextEncoder.of(load_tokenizer(folder))
    encoded = encoder.encode([document.text for document in documents])     # once
    scores = score_encoded(model, encoder, encoded, ScoreOptions(bos="never"))  # as often as the tables change
    scores.bits_per_byte, scores.document_bits(), scores.document_bytes()

`score_documents` does both steps. Every byte is scored exactly once; the sum of `bits` over a document is its
negative log2-likelihood, and the bytes are the document's own UTF-8 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from tokenadapt.errors import RequestError
from tokenadapt.evaluation.batches import Frame, arrange, build
from tokenadapt.evaluation.encode import Encoded, TextEncoder
from tokenadapt.evaluation.head import Scorer
from tokenadapt.evaluation.options import ScoreOptions
from tokenadapt.evaluation.windows import Windows, cut_windows, masked_windows
from tokenadapt.progress import Advance

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]

# These number their positions from the padding id up, so that the first ones are never used.
_POSITIONS_AFTER_PAD: Final = ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "longformer", "mpnet")


class Texty(Protocol):
    """Anything with a text: `tokenadapt.corpus.Document`."""

    @property
    def text(self) -> str:
        """The document itself."""
        ...


@dataclass(frozen=True)
class Scores:
    """Bits of every token of some documents."""

    encoded: Encoded
    bits: Floats  # (N,)
    clipped: int = 0  # windows that the model's positions made shorter than asked

    def document_bits(self) -> Floats:
        """Negative log2-likelihood of each document."""
        low, high = self.encoded.start[:-1].tolist(), self.encoded.start[1:].tolist()
        return np.array([self.bits[one:other].sum() for one, other in zip(low, high, strict=True)])

    def document_bytes(self) -> Floats:
        """UTF-8 bytes of each document."""
        return self.encoded.size.astype(np.float64)

    @property
    def bits_per_byte(self) -> float:
        """Total bits over total bytes; NaN for no text."""
        total = int(self.encoded.size.sum())
        return float(self.bits.sum()) / total if total else math.nan


def model_positions(model: nn.Module) -> int:
    """How many tokens the model reads at most; a very large number where it sets no limit."""
    config = getattr(model, "config", None)
    text = getattr(config, "text_config", None) or config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            counts_from_pad = getattr(text, "model_type", "") in _POSITIONS_AFTER_PAD
            return value - (getattr(text, "pad_token_id", None) or 0) - 1 if counts_from_pad else value
    return 1 << 30


def score_documents(
    model: nn.Module | Scorer,
    encoder: TextEncoder,
    documents: Sequence[Texty],
    options: ScoreOptions = ScoreOptions(),  # noqa: B008  # frozen
) -> Scores:
    """Encode and score; for many models of one tokenizer, encode once and call `score_encoded`."""
    return score_encoded(model, encoder, encoder.encode([document.text for document in documents]), options)


def score_encoded(
    model: nn.Module | Scorer,
    encoder: TextEncoder,
    encoded: Encoded,
    options: ScoreOptions = ScoreOptions(),  # noqa: B008  # frozen
    *,
    share: tuple[int, int] = (0, 1),
    into: Floats | None = None,
    advance: Advance = lambda amount: None,
) -> Scores:
    """Bits of every token; with `share` (rank, size) only of this process's batches.

    `into` (N,) is filled in place, so that a caller that is interrupted keeps what was scored; `advance` is called
    with the bytes just scored.
    """
    masked = options.kind == "masked"
    scorer = model if isinstance(model, Scorer) else Scorer(model, head_bytes=options.head_bytes, masked=masked)
    frame, windows = plan_windows(scorer, encoder, encoded, options)
    bits = np.zeros(len(encoded.ids)) if into is None else into
    rank, size = share
    if rank == 0:
        unread = _unread(encoded, windows, frame)
        bits[unread] = math.log2(max(2, encoder.texts))
        advance(float(encoded.nbytes[unread].sum()))
    shortest = int((windows.end - windows.begin).min()) if len(windows) else 0
    budget = scorer.budget(options.batch_tokens, shortest)
    for work in arrange(encoded, windows, frame, budget)[rank::size]:
        batch = build(encoded, windows, frame, work)
        bits[batch.token] = scorer.bits(batch, encoded.ids[batch.token])
        advance(float(encoded.nbytes[batch.token].sum()))
    return Scores(encoded, bits, windows.clipped)


def plan_windows(
    scorer: Scorer, encoder: TextEncoder, encoded: Encoded, options: ScoreOptions
) -> tuple[Frame, Windows]:
    """What the model will read, in which stretches."""
    prefix, suffix = encoder.frame(options.bos, options.kind)
    windows = cut_windows(encoded, options, model_positions(scorer.model), len(prefix) + len(suffix))
    if options.kind == "causal":
        return Frame(prefix), windows
    if encoder.mask is None:
        raise RequestError("The tokenizer has no mask token.", "Pseudo-log-likelihood needs a masked language model.")
    return Frame(prefix, suffix, encoder.mask), masked_windows(windows)


def _unread(encoded: Encoded, windows: Windows, frame: Frame) -> NDArray[np.int64]:
    """Tokens that nothing stands before: without a begin token, the first of each document.

    No causal model says anything about them. They are charged as one of all tokens that stand for text, each as
    likely: a code that exists, so that every byte is still paid for once.
    """
    if frame.mask is not None:
        return np.zeros(0, dtype=np.int64)
    alone = (windows.first == windows.begin) & ~(windows.framed & bool(frame.prefix))
    return np.asarray(windows.first[alone])
