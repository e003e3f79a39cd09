"""`--space`: from what a user typed to a space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenadapt.errors import RequestError
from tokenadapt.plan import Model, Space, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import SpaceOptions, TokenVectors, split_spec
from tokenadapt.spaces.own import RowVectors, StateVectors
from tokenadapt.spaces.ranks import ranks
from tokenadapt.spaces.space import TokenSpace
from tokenadapt.spaces.spelling import SpellingVectors
from tokenadapt.spaces.text import Encoder, TextVectors
from tokenadapt.spaces.undertrained import undertrained
from tokenadapt.vocab.types import Alignment, ByteVocab, Segmentation

DEPTH: Final = 0.25
HINT: Final = "Say self (or self:spelling), self:rows, self:states=DEPTH, hf:ID, st:ID or static:PATH."


@dataclass(frozen=True)
class Own:
    """What a space made of the source model is made from."""

    source: ByteVocab
    segmentation: Segmentation
    table: Table  # the old input table
    model: Model | None


def check_spec(spec: str) -> None:
    """Raises RequestError where `spec` names no space; nothing is opened."""
    place, _ = split_spec(spec, SpaceOptions())
    kind, _, rest = place.partition(":")
    if kind == "self":
        if rest not in ("", "spelling", "rows"):
            _depth(rest)
    elif kind not in ("hf", "st", "static") or not rest:
        raise RequestError(f"There is no space {place!r}.", HINT)
    elif kind == "static" and not Path(rest).expanduser().exists():
        raise RequestError(f"There is no static table at {rest}.", "Check the path after static:.")


def open_space(
    spec: str,
    *,
    source: ByteVocab,
    target: ByteVocab,
    alignment: Alignment,
    segmentation: Segmentation,
    table: Table,
    model: Model | None = None,
    options: SpaceOptions | None = None,
    progress: Progress = SILENT,
) -> Space:
    """The space that `spec` names; `table` is the old input table. Encoders load when their vectors are asked for.

    A tail of options may follow, as in `hf:intfloat/e5-small-v2:pooling=mean,prefix=query: `.

    Raises RequestError for a name that there is not, MissingExtraError where a library is wanted and absent.
    """
    check_spec(spec)
    place, options = split_spec(spec, options or SpaceOptions())
    kind, _, rest = place.partition(":")
    output = model.table("output") if model is not None and not model.tied else table
    glitches = undertrained(output, source)
    vectors: TokenVectors
    if place in ("self", "self:spelling"):
        vectors = SpellingVectors(table, (source, target), alignment, glitches, progress)
    elif kind == "self":
        vectors = _own(rest, Own(source, segmentation, table, model), progress)
    else:
        encoder = _encoder(kind, rest, options, progress)
        vectors = TextVectors(encoder, source, target, alignment, segmentation)
    if ranks().world > 1:
        vectors.prepare()  # here all ranks are together; later only one may ask
    sides = (source, target)
    return TokenSpace(spec, vectors, sides, alignment, table.shape[0], glitches, options=options, progress=progress)


def _own(rest: str, own: Own, progress: Progress) -> TokenVectors:
    if rest == "rows":
        return RowVectors(own.table, own.source, own.segmentation)
    depth = _depth(rest)
    if own.model is None:
        raise RequestError(f"The space self:{rest} needs the source model itself.", "Choose self, or give a model.")
    return StateVectors(own.model, depth, own.source, own.segmentation, progress)


def _depth(rest: str) -> float:
    """The relative depth in states=DEPTH."""
    name, _, number = rest.partition("=")
    if name != "states":
        raise RequestError(f"There is no space self:{rest}.", HINT)
    try:
        depth = float(number) if number else DEPTH
    except ValueError:
        depth = -1.0
    if not 0 <= depth <= 1:
        raise RequestError(f"{number!r} is no relative depth.", "It lies from 0 to 1: self:states=0.25.")
    return depth


def _encoder(kind: str, rest: str, options: SpaceOptions, progress: Progress) -> Encoder:
    if kind == "hf" and rest:
        from tokenadapt.spaces.transformer import TransformerEncoder

        return TransformerEncoder(rest, options, progress)
    if kind == "st" and rest:
        from tokenadapt.spaces.sentence import SentenceEncoder

        return SentenceEncoder(rest, options, progress)
    from tokenadapt.spaces.static import StaticEncoder
    from tokenadapt.spaces.wordvectors import WordVectors

    path = Path(rest).expanduser()
    return StaticEncoder(path) if path.is_dir() else WordVectors(path)
