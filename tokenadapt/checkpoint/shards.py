"""The safetensors container: where each tensor's bytes stand in a file. Nothing here decodes a number.

A file is eight bytes of header length (little endian), a JSON header, then the tensors' bytes without holes. The
header maps each name to its dtype, shape and the first and last byte counted from the end of the header.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokenadapt.errors import RequestError

# Bits of one element. Types that are not listed pass through as bytes: only tables are ever decoded.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in FLOATS.items()}
LONGEST_HEADER = 100_000_000  # the limit of the reference implementation
AGAIN = "Download or copy the checkpoint again."


@dataclass(frozen=True)
class TensorRef:
    """One tensor of a checkpoint, by place."""

    name: str
    shard: str  # file name inside the checkpoint's folder
    dtype: str  # safetensors' name: BF16, F32, ...
    shape: tuple[int, ...]
    offset: int  # first byte, counted from the start of the file
    nbytes: int


@dataclass(frozen=True)
class Shard:
    """One safetensors file: its tensors in the header's order."""

    name: str
    path: Path
    size: int  # bytes on disk
    metadata: Mapping[str, str]
    tensors: tuple[TensorRef, ...]


def read_shard(path: Path) -> Shard:
    """Read and check the header of one file; raises RequestError where the file is damaged or cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(LONGEST_HEADER, size - 8):
                raise ValueError("its header is cut short")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_distinct)
        if not isinstance(header, dict):
            raise ValueError("its header is no JSON object")
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are no strings")
        tensors = tuple(_tensor(path.name, 8 + length, name, entry) for name, entry in header.items())
        _check_places(tensors, 8 + length, size)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise RequestError(f"{path} is no intact safetensors file: {reason}.", AGAIN) from error
    return Shard(path.name, path, size, metadata, tensors)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("its header names a tensor twice")
    return made


def _tensor(shard: str, base: int, name: str, entry: Mapping[str, Any]) -> TensorRef:
    begin, end = (int(edge) for edge in entry["data_offsets"])
    shape = tuple(int(side) for side in entry["shape"])
    if begin < 0 or end < begin or min(shape, default=0) < 0:
        raise ValueError(f"tensor {name} has an impossible place")
    bits = BITS.get(entry["dtype"])
    if bits is not None and math.prod(shape) * bits != 8 * (end - begin):
        raise ValueError(f"tensor {name} has {end - begin} bytes, which its shape does not give")
    return TensorRef(name, shard, entry["dtype"], shape, base + begin, end - begin)


def _check_places(tensors: tuple[TensorRef, ...], base: int, size: int) -> None:
    """Tensors lie side by side from the header to the end of the file."""
    reached = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != reached:
            raise ValueError(f"tensor {tensor.name} overlaps another or leaves a hole")
        reached += tensor.nbytes
    if reached > size:
        raise ValueError(f"it has {size} bytes where its header promises {reached}")
    if reached < size:
        raise ValueError(f"{size - reached} bytes follow its last tensor")


def make_header(tensors: list[tuple[str, str, tuple[int, ...], int]], metadata: Mapping[str, str]) -> bytes:
    """The eight bytes and the header for tensors (name, dtype, shape, bytes) in this order, padded to 8 bytes.

    Written as the reference implementation writes it, so that an unchanged list of tensors gives unchanged bytes.
    """
    header: dict[str, Any] = {}
    # Transformers refuses a file that does not say which framework's layout it holds.
    header["__metadata__"] = {**metadata} if "format" in metadata else {"format": "pt", **metadata}
    place = 0
    for name, dtype, shape, nbytes in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + nbytes]}
        place += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
