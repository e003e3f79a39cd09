"""The new checkpoint's tensors: tables streamed in blocks, all else moved as bytes that nobody decodes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tokenadapt.checkpoint.folder import INDEX
from tokenadapt.checkpoint.place import Placed, blob_digest, copy_file, digest_range, share_file
from tokenadapt.checkpoint.rewrite import Item, aligned, bias_item, old_item, table_item, write_shard
from tokenadapt.checkpoint.shards import Shard, TensorRef
from tokenadapt.checkpoint.source import SourceCheckpoint
from tokenadapt.checkpoint.written import NewTable, WrittenShard, WrittenTensor, WrittenTensors
from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.plan import Role
from tokenadapt.progress import SILENT, Progress

_RESERVE = 16 << 20  # room for headers, JSON and tokenizer files beside the tensors


def write_checkpoint_tensors(
    source: SourceCheckpoint,
    staging: Path,
    tables: Mapping[Role, NewTable],
    biases: Mapping[str, torch.Tensor],
    *,
    replaced: Mapping[str, torch.Tensor] | None = None,
    untie: bool = False,
    copy: bool = False,
    hash_untouched: bool = False,
    progress: Progress = SILENT,
) -> WrittenTensors:
    """Write every tensor of the new checkpoint into `staging`.

    `tables` has the role input, and the role output where the source is not tied or `untie` asks for it. `biases` has
    one tensor for each of `source.biases`, by name; `replaced` has other tensors that changed. File names, the order
    of tensors and the header's metadata are the source's. `hash_untouched` reads the layers too, for hashes of every
    tensor; without it they are never read.
    """
    untied = not source.tied or untie
    _check_request(source, tables, biases, untied)
    items = _items(source, tables, {**biases, **(replaced or {})}, untied)
    changed = {shard.name for shard in source.shards if any(item.blocks for item in items[shard.name])}
    how: dict[str, Placed] = {}
    for shard in source.shards:
        shared = None if copy or shard.name in changed else share_file(shard.path, staging / shard.name)
        if shared:
            how[shard.name] = shared
    total = sum(sum(item.nbytes for item in items[shard.name]) for shard in source.shards if shard.name not in how)
    _check_room(staging, total)
    tensors: list[WrittenTensor] = []
    with progress.stage("write tensors", total, "bytes") as advance:
        for shard in source.shards:
            if shard.name in changed:
                tensors += write_shard(shard, staging / shard.name, items[shard.name], advance)
                continue
            if shard.name not in how:
                copy_file(shard.path, staging / shard.name, advance)
                how[shard.name] = "copied"
            tensors += [_untouched(ref) for ref in shard.tensors]
    shards = tuple(_describe(shard, staging, how.get(shard.name)) for shard in source.shards)
    linked = sum(shard.how == "linked" for shard in shards)
    if linked:
        progress.note(
            f"{linked} of {len(shards)} shards are hard links to the source's: --copy makes files of their own"
        )
    if hash_untouched:
        tensors = _hashed(source, tensors, {shard.name for shard in shards if shard.sha256}, progress)
    names: Mapping[Role, str] = source.untied_names if untied else {"input": source.tables["input"].name}
    written = WrittenTensors(tuple(tensors), shards, not untied, names)
    if source.index is not None:
        _write_index(source, staging, written)
    return written


def _check_request(
    source: SourceCheckpoint, tables: Mapping[Role, NewTable], biases: Mapping[str, torch.Tensor], untied: bool
) -> None:
    wanted = {"input", "output"} if untied else {"input"}
    if set(tables) != wanted:
        raise ValueError(f"tables for {sorted(wanted)} are needed, {sorted(tables)} were given")
    if untied and source.tied and source.kind == "seq2seq":
        raise RequestError(
            "The output table of an encoder-decoder model cannot be untied: its code scales the two cases differently.",
            "Leave --untie away.",
        )
    if set(biases) != {ref.name for ref in source.biases}:
        raise ValueError(f"one bias for each of {[ref.name for ref in source.biases]} is needed")
    rows = {table.shape[0] for table in tables.values()} | {bias.numel() for bias in biases.values()}
    if len(rows) != 1 or any(table.shape[1] != source.width for table in tables.values()):
        raise ValueError("tables and biases must have one number of rows and the source's width")


def _items(
    source: SourceCheckpoint, tables: Mapping[Role, NewTable], biases: Mapping[str, torch.Tensor], untied: bool
) -> dict[str, list[Item]]:
    """What each shard will hold, in order."""
    new: dict[str, Item] = {}
    serves = {name: role for role, name in source.untied_names.items()} if untied else {}
    for role, ref in source.tables.items():
        for one in (ref, *source.copies[role]):
            # A tensor that held the tied table under the head's name becomes the head when the model is untied.
            new[one.name] = table_item(one.name, tables[serves.get(one.name, role)])
    for name, bias in biases.items():
        new[name] = bias_item(name, bias)
    items = {shard.name: [new.get(ref.name) or old_item(ref) for ref in shard.tensors] for shard in source.shards}
    for name, role in serves.items():
        if name not in new:
            items[source.tables["input"].shard].append(table_item(name, tables[role]))
    return {name: aligned(held) for name, held in items.items()}


def _check_room(staging: Path, needed: int) -> None:
    free = shutil.disk_usage(staging).free
    if free < needed + _RESERVE:
        raise TokenAdaptError(
            f"The output needs {needed + _RESERVE:,} bytes of disk, and {free:,} are free.",
            "Make room, or write the output on another disk.",
        )


def _untouched(ref: TensorRef) -> WrittenTensor:
    return WrittenTensor(ref.name, ref.shard, ref.dtype, ref.shape, ref.offset, ref.nbytes, False, None)


def _describe(shard: Shard, staging: Path, how: Placed | None) -> WrittenShard:
    size = (staging / shard.name).stat().st_size
    return WrittenShard(shard.name, size, how or "written", blob_digest(shard.path) if how else None)


def _hashed(
    source: SourceCheckpoint, tensors: list[WrittenTensor], known: set[str], progress: Progress
) -> list[WrittenTensor]:
    """Hashes of the source's own bytes, so that a bad copy shows; not where the whole shard's hash is `known`."""
    refs = {ref.name: ref for shard in source.shards for ref in shard.tensors}
    wanted = {tensor.name for tensor in tensors if not tensor.new and tensor.shard not in known}
    made: dict[str, str] = {}
    with progress.stage("hash untouched tensors", sum(refs[name].nbytes for name in wanted), "bytes") as advance:
        for name in sorted(wanted):
            made[name] = digest_range(source.path_of(refs[name]), refs[name].offset, refs[name].nbytes)
            advance(refs[name].nbytes)
    return [replace(tensor, sha256=made.get(tensor.name, tensor.sha256)) for tensor in tensors]


def _write_index(source: SourceCheckpoint, staging: Path, written: WrittenTensors) -> None:
    assert source.index is not None
    index: dict[str, Any] = {**source.index}
    metadata = {**index.get("metadata", {}), "total_size": written.total_bytes}
    if "total_parameters" in metadata:
        metadata["total_parameters"] += _more_parameters(source, written)
    index["metadata"] = metadata
    index["weight_map"] = dict(sorted((tensor.name, tensor.shard) for tensor in written.tensors))
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    (staging / INDEX).write_text(text, encoding="utf-8")


def _more_parameters(source: SourceCheckpoint, written: WrittenTensors) -> int:
    """By how much the model's parameters grew; a (1, V) bias is a buffer, which the library does not count."""
    before = {ref.name: math.prod(ref.shape) for ref in (*source.tables.values(), *source.biases) if ref.shape[0] > 1}
    counted = {*written.tables.values(), *before}
    after = sum(math.prod(tensor.shape) for tensor in written.tensors if tensor.name in counted)
    return after - sum(before.values())
