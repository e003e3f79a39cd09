"""The files of a checkpoint folder: its JSON files and its safetensors shards, checked before anything is believed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tokenadapt.checkpoint.shards import AGAIN, Shard, read_shard
from tokenadapt.errors import RequestError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "consolidated*.pth", "*.ckpt")


def read_json(folder: Path, name: str, *, missing_ok: bool = False) -> dict[str, Any]:
    """A JSON object from a checkpoint folder; {} where it is absent and may be."""
    path = folder / name
    if not folder.is_dir():
        raise RequestError(f"There is no model folder {folder}.", "Name a folder that holds a checkpoint, or a Hub id.")
    if not path.exists() and missing_ok:
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RequestError(f"{folder} has no {name}.", "Name a folder that holds a whole checkpoint.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read as JSON ({error}).", AGAIN) from error
    if not isinstance(value, dict):
        raise RequestError(f"{path} is no JSON object.", AGAIN)
    return value


def read_shards(folder: Path) -> tuple[tuple[Shard, ...], Mapping[str, Any] | None]:
    """The checked shards of a folder in the index's order, and the index (None for a single file)."""
    if (folder / SINGLE).exists():  # the loader's own order of preference
        return (read_shard(folder / SINGLE),), None
    if not (folder / INDEX).exists():
        raise _nothing_usable(folder)
    index = read_json(folder, INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise RequestError(f"{folder / INDEX} maps no tensor to a shard.", AGAIN)
    names = list(dict.fromkeys(weight_map.values()))
    for name in names:
        _check_name(folder, name)
    shards = tuple(read_shard(folder / name) for name in names)
    _check_map(folder, weight_map, shards)
    return shards, index


def _check_name(folder: Path, name: str) -> None:
    if PurePosixPath(name).name != name or PureWindowsPath(name).name != name or name in ("", ".", ".."):
        raise RequestError(
            f"{folder / INDEX} names a shard outside its folder: {name!r}.", "Do not trust this checkpoint."
        )
    if not (folder / name).is_file():
        raise RequestError(f"{folder / INDEX} names a shard that is missing: {name}.", AGAIN)


def _check_map(folder: Path, weight_map: Mapping[str, str], shards: tuple[Shard, ...]) -> None:
    """Every tensor stands once, where the index says: loaders read every tensor of every listed shard."""
    held = {(tensor.name, shard.name) for shard in shards for tensor in shard.tensors}
    absent = [name for name, shard in weight_map.items() if (name, shard) not in held]
    if absent:
        raise RequestError(
            f"{folder / INDEX} places {absent[0]} in {weight_map[absent[0]]}, which does not hold it.", AGAIN
        )
    twice = [name for name, count in Counter(name for name, _ in held).items() if count > 1]
    if twice:
        raise RequestError(f"{folder} holds the tensor {twice[0]} in two shards.", AGAIN)


def _nothing_usable(folder: Path) -> RequestError:
    def has(*patterns: str) -> bool:
        return any(next(folder.glob(pattern), None) is not None for pattern in patterns)

    if has("adapter_config.json"):
        return RequestError(
            f"{folder} is an adapter, not a model.", "Merge it into its base model (peft: merge_and_unload) first."
        )
    if has("*.gguf"):
        return RequestError(
            f"{folder} holds GGUF files, whose tables are packed.", "Take the original safetensors checkpoint."
        )
    if has(*_PICKLES):
        return RequestError(
            f"{folder} holds pickled weights only, and pickles can run any code.",
            'Convert a checkpoint that you trust: python -c "from transformers import AutoModelForCausalLM as M; '
            "M.from_pretrained('IN').save_pretrained('OUT')\", or take a revision with safetensors.",
        )
    return RequestError(
        f"{folder} holds neither {SINGLE} nor {INDEX}.", "Name a folder that holds a whole checkpoint in safetensors."
    )
