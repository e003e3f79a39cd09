"""How single rows of a result came about, from its own manifest and plan: bytes, pieces, weights, norms, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tokenadapt.checkpoint.manifest import FILE as MANIFEST
from tokenadapt.checkpoint.manifest import read_manifest
from tokenadapt.checkpoint.saved_plan import SavedPlan, load_plan
from tokenadapt.checkpoint.source import SourceCheckpoint, open_source
from tokenadapt.errors import RequestError
from tokenadapt.plan import BLOCK_ROWS, MEAN, Plan, Role, Table
from tokenadapt.vocab import byte_vocab, load_tokenizer
from tokenadapt.vocab.maps import TokenNames
from tokenadapt.vocab.types import ByteVocab, How

NEAREST = 5
_SAMPLE = 2000  # copied rows whose norms are compared with


@dataclass(frozen=True)
class Contribution:
    """An old token in the mix of a row, or the mean of all old rows: then there is no id."""

    source_id: int | None
    token: str
    weight: float


@dataclass(frozen=True)
class RoleExplanation:
    """A token's row in one table."""

    role: str
    made_by: str
    contributions: tuple[Contribution, ...]
    norm: float
    copied_norms: tuple[float, float, float]  # 5th, 50th and 95th percentile of the copied rows' norms
    nearest: tuple[tuple[int, str, float], ...]  # id, token, cosine


@dataclass(frozen=True)
class Explanation:
    """Everything that is known about one token of a result."""

    id: int
    token: str
    bytes: str | None  # hexadecimal; None where the token holds no text
    how: str
    note: str
    roles: tuple[RoleExplanation, ...]
    trained: str  # by which calibrations, in order, since the row was made; empty: it is as it was made


def explain(folder: Path, tokens: Sequence[str], *, trust_remote_code: bool = False) -> tuple[Explanation, ...]:
    """Explain `tokens` of a folder made by transplant: each a text, a spelling of the vocabulary, or `#ID`.

    Raises RequestError for a token that does not exist and for a folder without a plan.
    """
    saved = load_plan(folder)
    checkpoint = open_source(folder, trust_remote_code=trust_remote_code)
    vocab = byte_vocab(load_tokenizer(str(folder), trust_remote_code=trust_remote_code))
    names = TokenNames(vocab)
    ids = [_find(names, token, len(saved.alignment.how)) for token in tokens]
    runs = calibrations(folder)
    return tuple(_explain(index, saved, checkpoint, vocab, runs) for index in ids)


def _find(names: TokenNames, token: str, rows: int) -> int:
    if token.startswith("#") and token[1:].isdecimal():
        if int(token[1:]) < rows:
            return int(token[1:])
        raise RequestError(f"There is no row {token}: the table has {rows}.", "Give an id below that.")
    found = names.find(token)
    if found is not None:
        return found
    [pieces] = names.vocab.encode([token])
    shown = " ".join(repr(_text(names.vocab, piece)) for piece in pieces)
    raise RequestError(
        f"{token!r} is no token of this vocabulary: it is read as {shown}.",
        "Give one token: a text with its leading space, a spelling of the vocabulary, or #ID.",
    )


def _text(vocab: ByteVocab, index: int) -> str:
    if index >= len(vocab):
        return "(padding)"
    spelled = vocab.token_bytes[index]
    return spelled.decode("utf-8", "backslashreplace") if spelled is not None else vocab.text[index] or "(no token)"


def calibrations(folder: Path) -> tuple[str, ...]:
    """What each calibration of a result trained, in order: `new`, `rows`, ...; nothing where there is no manifest."""
    if not (folder / MANIFEST).is_file():
        return ()
    return tuple(str(run.get("train")) for run in read_manifest(folder).calibrations)


def _explain(
    index: int, saved: SavedPlan, checkpoint: SourceCheckpoint, vocab: ByteVocab, runs: Sequence[str]
) -> Explanation:
    roles: tuple[Role, ...] = ("output",) if checkpoint.tied else ("input", "output")
    spelled = vocab.token_bytes[index] if index < len(vocab) else None
    return Explanation(
        id=index,
        token=_text(vocab, index),
        bytes=spelled.hex(" ") if spelled is not None else None,
        how=How(int(saved.alignment.how[index])).name.lower(),
        note=saved.alignment.notes.get(index, ""),
        roles=tuple(_explain_role(index, role, saved, checkpoint, vocab) for role in roles),
        trained=", ".join(
            f"calibrate --train {run}" for run in runs if _is_trained(run, How(saved.alignment.how[index]))
        ),
    )


def _is_trained(run: str, how: How) -> bool:
    """Whether a calibration changed rows of a kind."""
    return how == How.MISSING or (run.startswith("rows") and how != How.UNUSED)


def _explain_role(
    index: int, role: Role, saved: SavedPlan, checkpoint: SourceCheckpoint, vocab: ByteVocab
) -> RoleExplanation:
    table = checkpoint.table(role)
    row = table.rows(np.array([index])).float()[0]
    copied = np.flatnonzero(saved.alignment.source_id >= 0)
    sample = copied[:: max(1, len(copied) // _SAMPLE)]
    low, middle, high = np.percentile(table.rows(sample).float().norm(dim=1).numpy(), (5, 50, 95)).tolist()
    return RoleExplanation(
        role="tied" if checkpoint.tied else role,
        made_by=_made_by(index, role, saved),
        contributions=_contributions(index, role, saved),
        norm=float(row.norm()),
        copied_norms=(low, middle, high),
        nearest=tuple((near, _text(vocab, near), cosine) for near, cosine in _nearest(table, index, row)),
    )


def _made_by(index: int, role: Role, saved: SavedPlan) -> str:
    how = saved.alignment.how[index]
    if how == How.MISSING:
        follows = f", then {saved.calibration}" if saved.calibration else ""
        return saved.methods.get(role, "") + follows
    return "the rule for unused ids" if how == How.UNUSED else "an old row"


def _contributions(index: int, role: Role, saved: SavedPlan) -> tuple[Contribution, ...]:
    old = int(saved.alignment.source_id[index])
    if old >= 0:
        return (Contribution(old, _old_text(saved, old), 1.0),)
    made = saved.made.get(role)
    if saved.alignment.how[index] != How.MISSING or not isinstance(made, Plan):
        return ()
    at = int(np.searchsorted(saved.alignment.missing, index))
    run = slice(int(made.start[at]), int(made.start[at + 1]))
    pairs = zip(made.source_id[run].tolist(), made.weight[run].tolist(), strict=True)
    return tuple(Contribution(None if old == MEAN else old, _old_text(saved, old), weight) for old, weight in pairs)


def _old_text(saved: SavedPlan, index: int) -> str:
    if index == MEAN:
        return "the mean of all old rows"
    return saved.source_tokens[index].decode("utf-8", "backslashreplace") if index < len(saved.source_tokens) else ""


def _nearest(table: Table, index: int, row: torch.Tensor) -> list[tuple[int, float]]:
    """The rows of highest cosine to one row, itself left out; read in blocks."""
    scores = []
    for first in range(0, table.shape[0], BLOCK_ROWS):
        block = table.rows(np.arange(first, min(first + BLOCK_ROWS, table.shape[0]))).float()
        scores.append(torch.nn.functional.cosine_similarity(block, row[None], dim=1))
    every = torch.cat(scores)
    every[index] = -2
    best = every.topk(min(NEAREST, len(every) - 1))
    return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
