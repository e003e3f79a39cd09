"""A checkpoint folder seen from its vocabulary: which tensors are tables, which are biases, all others are bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tokenadapt.atomic import resolved, sweep
from tokenadapt.checkpoint.find import find_tables
from tokenadapt.checkpoint.folder import read_json, read_shards
from tokenadapt.checkpoint.layout import Kind, read_layout
from tokenadapt.checkpoint.shards import FLOATS, Shard, TensorRef
from tokenadapt.checkpoint.tables import FileTable
from tokenadapt.errors import RequestError
from tokenadapt.plan import Role


@dataclass(frozen=True)
class SourceCheckpoint:
    """A model folder that was read: nothing but headers and JSON is in memory."""

    folder: Path
    config: Mapping[str, Any]  # config.json as it stands
    generation_config: Mapping[str, Any] | None
    kind: Kind
    architecture: str  # the model's class
    tied: bool  # one table in both roles: what the file and the flag say together
    tie_flag: bool | None  # what `tie_word_embeddings` must become in the output; None where it is right as it stands
    tables: Mapping[Role, TensorRef]  # a tied model has the role input only
    copies: Mapping[Role, tuple[TensorRef, ...]]  # further tensors with the same bytes, written again with the table
    biases: tuple[TensorRef, ...]  # (V,) or (1, V)
    shards: tuple[Shard, ...]
    index: Mapping[str, Any] | None  # the index file's other keys, where there is one
    untied_names: Mapping[Role, str]  # of the tables once they are two
    rows: int  # V
    width: int  # D
    positions: int | None  # longest text the model takes
    notes: tuple[str, ...] = ()
    _open: dict[str, FileTable] = field(default_factory=dict, compare=False, repr=False)

    def table(self, role: Role) -> FileTable:
        """The old table of a role, readable by row; a tied model's table serves both."""
        ref = self.tables.get(role) or self.tables["input"]
        if ref.name not in self._open:
            self._open[ref.name] = FileTable(self.path_of(ref), ref)
        return self._open[ref.name]

    def bias(self, ref: TensorRef) -> torch.Tensor:
        """A bias in its own shape and storage type."""
        if ref.dtype not in FLOATS:
            raise RequestError(f"The bias {ref.name} is stored as {ref.dtype}.", "Take the unquantised checkpoint.")
        with self.path_of(ref).open("rb") as file:
            file.seek(ref.offset)
            data = bytearray(file.read(ref.nbytes))
        return torch.frombuffer(data, dtype=FLOATS[ref.dtype]).reshape(ref.shape)

    def path_of(self, ref: TensorRef) -> Path:
        """The file that holds a tensor."""
        return next(shard.path for shard in self.shards if shard.name == ref.shard)


def open_source(folder: Path, *, trust_remote_code: bool = False) -> SourceCheckpoint:
    """Read a checkpoint's headers and find its vocabulary; raises RequestError where that cannot be done safely."""
    folder = Path(folder)
    if not folder.exists():
        sweep(resolved(folder).parent)  # a run that was killed while it replaced this folder
    config = read_json(folder, "config.json")
    shards, index = read_shards(folder)
    layout = read_layout(folder, trust_remote_code=trust_remote_code)
    found = find_tables(folder, layout, shards)
    ref = found.tables["input"]
    # T5 reads the flag as a scale of its output too: there it must stay as it is.
    wrong = layout.tied != found.tied and layout.kind != "seq2seq"
    return SourceCheckpoint(
        folder=folder,
        config=config,
        generation_config=read_json(folder, "generation_config.json", missing_ok=True) or None,
        kind=layout.kind,
        architecture=layout.architecture,
        tied=found.tied,
        tie_flag=found.tied if wrong else None,
        tables=found.tables,
        copies=found.copies,
        biases=found.biases,
        shards=shards,
        index=index,
        untied_names=found.untied_names,
        rows=ref.shape[0],
        width=ref.shape[1],
        positions=layout.positions,
        notes=found.notes,
    )
