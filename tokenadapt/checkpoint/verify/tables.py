"""The tables, streamed in blocks: shapes, copied rows bit for bit, finite values, norms and directions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.checkpoint.id_keys import SIZES, TEXT
from tokenadapt.checkpoint.verify.report import Check, judge, passed, skipped, some
from tokenadapt.checkpoint.verify.subject import Subject
from tokenadapt.plan import Role, Table, rows_at_once
from tokenadapt.progress import SILENT, Advance, Progress
from tokenadapt.vocab.types import Ids

# How far beyond the copied rows' own range a made row may lie before it is told, as a share of that range.
MARGIN = 0.25


def table_checks(subject: Subject, progress: Progress = SILENT) -> Iterator[Check]:
    """All checks of the level `tables`."""
    yield _same_tensors(subject)
    yield _shapes(subject)
    yield _tie(subject)
    rows = subject.checkpoint.rows * len(subject.roles)
    with progress.stage("verify tables", rows, "rows") as advance:
        streams = {role: _stream(subject, role, advance) for role in subject.roles}
    yield judge("finite values", _not_finite(streams), f"{rows:,} rows")
    yield _copied(subject, streams)
    yield _hashes(subject, streams)
    yield _biases(subject)
    yield _norms(subject, streams)
    yield _directions(subject, streams)


@dataclass(frozen=True)
class _Stream:
    """What one pass over a table leaves."""

    norm: NDArray[np.float32]  # (V,)
    along: NDArray[np.float32]  # (V,) cosine with the mean of the copied rows
    broken: Ids  # ids with a value that is not finite
    differing: Ids | None  # ids whose bits are not the source's; None where there is no source
    sha256: str


def _stream(subject: Subject, role: Role, advance: Advance) -> _Stream:
    table = subject.checkpoint.table(role)
    old = subject.source.table(role) if subject.source and subject.alignment is not None else None
    unit = torch.nn.functional.normalize(_mean(table, subject.taken), dim=0)
    norm, along = np.zeros(table.shape[0], np.float32), np.zeros(table.shape[0], np.float32)
    broken: list[Ids] = []
    differing: list[Ids] = []
    digest = hashlib.sha256()
    step = rows_at_once(table.shape[1])
    for first in range(0, table.shape[0], step):
        ids = np.arange(first, min(first + step, table.shape[0]))
        rows = table.rows(ids)
        digest.update(rows.view(torch.uint8).numpy().data)
        wide = rows.float()
        norm[ids] = torch.linalg.vector_norm(wide, dim=1).numpy()
        along[ids] = (torch.nn.functional.normalize(wide, dim=1, eps=1e-30) @ unit).numpy()
        odd = ids[~np.isfinite(norm[ids])]  # a norm may overflow where no value is infinite
        broken.append(odd[~torch.isfinite(table.rows(odd)).all(1).numpy()])
        if old is not None:
            differing.append(_differing(subject, old, ids, rows))
        advance(len(ids))
    differs = np.concatenate(differing) if old is not None else None
    return _Stream(norm, along, np.concatenate(broken), differs, digest.hexdigest())


def _mean(table: Table, ids: Ids) -> torch.Tensor:
    total, count = torch.zeros(table.shape[1], dtype=torch.float64), 0
    step = rows_at_once(table.shape[1])
    for first in range(0, len(ids), step):
        rows = table.rows(ids[first : first + step]).float()
        part = rows.sum(0, dtype=torch.float64)
        if not bool(torch.isfinite(part).all()):
            rows = rows[torch.isfinite(rows).all(1)]
            part = rows.sum(0, dtype=torch.float64)
        total, count = total + part, count + len(rows)
    return (total / max(1, count)).float()


def _differing(subject: Subject, old: Table, ids: Ids, rows: torch.Tensor) -> Ids:
    assert subject.alignment is not None
    inside = np.isin(ids, subject.taken, assume_unique=True)
    theirs = old.rows(subject.alignment.source_id[ids[inside]]).to(rows.dtype)
    ours = rows[torch.from_numpy(np.flatnonzero(inside))]
    bits = torch.int32 if rows.dtype == torch.float32 else torch.int16
    return np.asarray(ids[inside][(ours.view(bits) != theirs.view(bits)).any(1).numpy()])


def _same_tensors(subject: Subject) -> Check:
    """Loaders read every tensor of every shard: a stale table may not stay in one."""
    held = {ref.name: ref for shard in subject.checkpoint.shards for ref in shard.tensors}
    if subject.manifest is None:
        return skipped("tensors", "there is no transplant.json to compare with")
    named = {tensor.name: tensor for tensor in subject.manifest.tensors}
    problems = [f"{name} is missing" for name in named if name not in held]
    problems += [f"{name} is not in the manifest" for name in held if name not in named]
    problems += [
        f"{name} is {ref.dtype} {list(ref.shape)} in {ref.shard}, not as the manifest says"
        for name, ref in held.items()
        if name in named and (ref.dtype, ref.shape, ref.shard) != _place(named[name])
    ]
    return judge("tensors", problems, f"{len(held):,} tensors")


def _place(tensor: object) -> tuple[object, ...]:
    return tuple(getattr(tensor, key) for key in ("dtype", "shape", "shard"))


def _shapes(subject: Subject) -> Check:
    checkpoint, problems = subject.checkpoint, []
    for role in subject.roles:
        shape = checkpoint.table(role).shape
        if shape != (checkpoint.rows, checkpoint.width):
            problems.append(f"the {role} table is {shape}, the input table {(checkpoint.rows, checkpoint.width)}")
    expected = {"the manifest": subject.manifest.rows if subject.manifest else None}
    expected["the plan"] = len(subject.plan.alignment.how) if subject.plan else None
    for place in (checkpoint.config, *(checkpoint.config.get(key) for key in TEXT)):
        if isinstance(place, dict):
            expected |= {f"config.json {key}": place[key] for key in SIZES if isinstance(place.get(key), int)}
    problems += [
        f"{name} says {rows} rows, the table has {checkpoint.rows}"
        for name, rows in expected.items()
        if rows is not None and rows != checkpoint.rows
    ]
    problems += [
        f"{ref.name} has {max(ref.shape)} numbers for {checkpoint.rows} rows"
        for ref in checkpoint.biases
        if max(ref.shape) != checkpoint.rows
    ]
    return judge("shapes", problems, f"{checkpoint.rows:,} x {checkpoint.width:,}")


def _tie(subject: Subject) -> Check:
    checkpoint, problems = subject.checkpoint, []
    state = "tied" if checkpoint.tied else "untied"
    if subject.manifest and subject.manifest.tied != checkpoint.tied:
        problems.append(f"the manifest says {'tied' if subject.manifest.tied else 'untied'}, the tables are {state}")
    if checkpoint.tie_flag is not None:
        problems.append(f"the tables are {state}, and tie_word_embeddings in config.json says otherwise")
    return judge("tie", problems, state)


def _not_finite(streams: dict[Role, _Stream]) -> Iterator[str]:
    for role, stream in streams.items():
        if len(stream.broken):
            yield f"{len(stream.broken):,} {role} rows hold a NaN or an infinity (ids {some(stream.broken)})"


def _copied(subject: Subject, streams: dict[Role, _Stream]) -> Check:
    if subject.alignment is None:
        return skipped("copied rows", "there is no transplant.plan that says which rows were copied")
    if subject.source is None:
        return skipped("copied rows", "compared with the source only where it is given: --source")
    problems = [
        f"{len(stream.differing):,} {role} rows differ from their source rows (ids {some(stream.differing)})"
        for role, stream in streams.items()
        if stream.differing is not None and len(stream.differing)
    ]
    return judge("copied rows", problems, f"{len(subject.taken):,} bit-identical" if not problems else "")


def _hashes(subject: Subject, streams: dict[Role, _Stream]) -> Check:
    if subject.manifest is None:
        return skipped("table hashes", "there is no transplant.json to compare with")
    known = {tensor.name: tensor.sha256 for tensor in subject.manifest.tensors}
    problems = []
    for role, stream in streams.items():
        name = (subject.checkpoint.tables.get(role) or subject.checkpoint.tables["input"]).name
        if known.get(name) not in (None, stream.sha256):
            problems.append(f"the {role} table {name} is not the one that was written")
    return judge("table hashes", problems, f"{len(streams)} tables")


def _biases(subject: Subject) -> Check:
    problems = [
        f"{ref.name} holds a value that is not finite"
        for ref in subject.checkpoint.biases
        if not bool(torch.isfinite(subject.checkpoint.bias(ref).float()).all())
    ]
    return judge("biases", problems, f"{len(subject.checkpoint.biases)} biases")


def _norms(subject: Subject, streams: dict[Role, _Stream]) -> Check:
    """Norms of made rows beside those of the copied ones."""
    return _outside(subject, "norms", {role: stream.norm for role, stream in streams.items()}, margin=0.0)


def _directions(subject: Subject, streams: dict[Role, _Stream]) -> Check:
    """Cosines of made rows with the mean copied row: a row planted to win or to break stands far out of the cloud."""
    return _outside(subject, "directions", {role: stream.along for role, stream in streams.items()}, margin=MARGIN)


def _outside(subject: Subject, name: str, values: dict[Role, NDArray[np.float32]], margin: float) -> Check:
    copied, made = subject.taken, subject.missing
    if not len(copied) or not len(made):
        return passed(name, "nothing to compare")
    problems, figures = [], []
    for role, value in values.items():
        low, high = float(np.nanmin(value[copied])), float(np.nanmax(value[copied]))
        slack = margin * (high - low)
        out = made[~((value[made] >= low - slack) & (value[made] <= high + slack))]
        figures.append(f"{role} {np.nanmedian(value[made]):.3g} ({np.nanmedian(value[copied]):.3g} copied)")
        if len(out):
            worst = out[np.argsort(-np.abs(value[out] - np.nanmedian(value[copied])), kind="stable")]
            problems.append(
                f"{len(out):,} made {role} rows are outside {low:.3g} to {high:.3g} as copied (ids {some(worst)})"
            )
    return judge(name, problems, "median " + ", ".join(figures), "warning")
