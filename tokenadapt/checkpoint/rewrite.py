"""One shard written anew: a header, then each tensor's bytes, streamed where they are new, else copied."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from tokenadapt.checkpoint.place import copy_range
from tokenadapt.checkpoint.shards import BITS, NAMES, Shard, TensorRef, make_header
from tokenadapt.checkpoint.written import Blocks, NewTable, WrittenTensor
from tokenadapt.progress import Advance


@dataclass(frozen=True)
class Item:
    """One tensor of a shard to be written: bytes of the source, or new blocks."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    old: TensorRef | None = None
    blocks: Blocks | None = None


def old_item(ref: TensorRef) -> Item:
    """A tensor of the source as it is."""
    return Item(ref.name, ref.dtype, ref.shape, ref.nbytes, old=ref)


def table_item(name: str, table: NewTable) -> Item:
    """A new table under a name."""
    nbytes = math.prod(table.shape) * table.dtype.itemsize
    return Item(name, NAMES[table.dtype], table.shape, nbytes, blocks=table.blocks)


def bias_item(name: str, bias: torch.Tensor) -> Item:
    """A new bias, which is small enough to be held."""
    return Item(
        name, NAMES[bias.dtype], tuple(bias.shape), bias.numel() * bias.element_size(), blocks=lambda: iter([bias])
    )


def aligned(items: list[Item]) -> list[Item]:
    """The same order, unless a tensor would then begin at no multiple of its element: widest elements first."""
    place = 0
    for item in items:
        if place % _width(item):
            return sorted(items, key=_width, reverse=True)
        place += item.nbytes
    return items


def _width(item: Item) -> int:
    return max(1, BITS.get(item.dtype, 8) // 8)


def write_shard(shard: Shard, path: Path, items: list[Item], advance: Advance) -> list[WrittenTensor]:
    """One file: header, then each tensor's bytes in order."""
    head = make_header([(item.name, item.dtype, item.shape, item.nbytes) for item in items], shard.metadata)
    written, place = [], len(head)
    with shard.path.open("rb") as old, path.open("xb") as new:
        new.write(head)
        for item in items:
            digest = None
            if item.old is not None:
                copy_range(old, new, item.old.offset, item.nbytes, advance)
            else:
                digest = _stream(item, new, advance)
            written.append(
                WrittenTensor(
                    item.name, shard.name, item.dtype, item.shape, place, item.nbytes, item.old is None, digest
                )
            )
            place += item.nbytes
    return written


def _stream(item: Item, new: BinaryIO, advance: Advance) -> str:
    """Write the blocks of a table and return the hash of its bytes, taken beside the writing."""
    assert item.blocks is not None
    digest, done = hashlib.sha256(), 0
    with ThreadPoolExecutor(1) as beside:
        hashed: Future[None] | None = None
        for block in item.blocks():
            if NAMES.get(block.dtype) != item.dtype:
                raise ValueError(f"{item.name}: a block of {block.dtype} in a table of {item.dtype}")
            data = block.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
            if hashed is not None:
                hashed.result()
            hashed = beside.submit(digest.update, data)
            new.write(data)
            done += len(data)
            advance(len(data))
    if done != item.nbytes:
        raise ValueError(f"{item.name}: {done} bytes came where {item.nbytes} were announced")
    return digest.hexdigest()
