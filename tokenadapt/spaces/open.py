"""`--space`: from what a user typed to a space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenadapt.errors import RequestError
from tokenadapt.plan import Model, Space, Table
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.options import SpaceOptions, TokenVectors
from tokenadapt.spaces.own import RowVectors
from tokenadapt.spaces.space import TokenSpace
from tokenadapt.spaces.text import Encoder, TextVectors
from tokenadapt.spaces.undertrained import undertrained
from tokenadapt.vocab.types import Alignment, ByteVocab, Segmentation

HINT = "Say self, self:rows, self:states=DEPTH, hf:ID, st:ID or static:PATH."


@dataclass(frozen=True)
class Setting:
    """What a space is opened for."""

    source: ByteVocab
    target: ByteVocab
    alignment: Alignment
    segmentation: Segmentation
    table: Table  # the old input table
    model: Model | None = None


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

    Raises RequestError for a name that there is not, MissingExtraError where a library is wanted and absent.
    """
    options = options or SpaceOptions()
    setting = Setting(source, target, alignment, segmentation, table, model)
    kind, _, rest = spec.partition(":")
    vectors: TokenVectors
    if kind == "self":
        vectors = _own(rest, setting)
    else:
        encoder = _encoder(kind, rest, spec)
        vectors = TextVectors(encoder, source, target, alignment, segmentation)
    untied = model is not None and not model.tied
    glitches = undertrained(
        model.table("output") if untied and model else table, source, "output" if untied else "input"
    )
    rows = table.shape[0]
    return TokenSpace(spec, vectors, (source, target), alignment, rows, glitches, options=options, progress=progress)


def _own(rest: str, setting: Setting) -> TokenVectors:
    if rest in ("", "rows"):
        return RowVectors(setting.table, setting.source, setting.segmentation)
    raise RequestError(f"There is no space self:{rest}.", HINT)


def _encoder(kind: str, rest: str, spec: str) -> Encoder:
    if kind == "static" and rest:
        from tokenadapt.spaces.static import StaticEncoder

        path = Path(rest).expanduser()
        if not path.exists():
            raise RequestError(f"There is no static table at {rest}.", "Check the path after static:.")
        return StaticEncoder(path)
    raise RequestError(f"There is no space {spec!r}.", HINT)
