"""`transplant.json`: the paper beside the file. What went in, what was done, and what must still be true of the folder.

It names files of its own folder only, and no paths, users or secrets of the machine that wrote it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tokenadapt import __version__
from tokenadapt.checkpoint.ids import Change
from tokenadapt.checkpoint.place import blob_digest
from tokenadapt.checkpoint.tokenizer_files import FILES as TOKENIZER_FILES
from tokenadapt.checkpoint.written import WrittenShard, WrittenTensor, WrittenTensors
from tokenadapt.errors import RequestError

FILE: Final = "transplant.json"
VERSION: Final = 1
_HASHED: Final = (*TOKENIZER_FILES, "config.json", "generation_config.json", "transplant.plan", "transplant.factors")
_SECRET: Final = re.compile(r"(hf_|sk-)[A-Za-z0-9]{8,}|token=[^&\s\"]+|://[^/\s\"]*@", re.IGNORECASE)
_FOLDERS: Final = re.compile(r"(?:^|(?<=[:=,+]))(?:~[^/\\]*|\.\.?|[A-Za-z]:)?[/\\](?![/\\])(?:[^/\\,]+[/\\])+")


@dataclass(frozen=True)
class Input:
    """A model or tokenizer that went in: as it was named, its revision, and hashes of its files."""

    spec: str  # a Hub id, a file name, or the name of a local folder: never a path
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)  # name -> sha256
    vocabulary: str = ""  # hash of what each id stands for
    tied: bool | None = None
    rows: int | None = None


@dataclass(frozen=True)
class SpecialToken:
    """A target token that took a row because of its role, or got none."""

    id: int
    token: str
    source_id: int | None
    source_token: str | None
    how: str


@dataclass(frozen=True)
class Manifest:
    """The record of one transplant."""

    source: Input
    target: Input
    methods: Mapping[str, str]  # role -> method with its options, as typed
    options: Mapping[str, Any]
    seed: int
    counts: Mapping[str, int]  # target ids by reason; sums to the rows of the tables
    spelled_alike: int
    tied: bool
    tables: Mapping[str, str]  # role -> tensor
    tensors: tuple[WrittenTensor, ...]
    shards: tuple[WrittenShard, ...]
    files: Mapping[str, str]  # name -> sha256 of the small files
    specials: tuple[SpecialToken, ...] = ()
    changes: tuple[Change, ...] = ()
    chat: str = ""
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage
    versions: Mapping[str, str] = field(default_factory=dict)
    verify: Mapping[str, Any] | None = None
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # role -> rank and losses of F P
    calibrations: tuple[Mapping[str, Any], ...] = ()  # what was trained afterwards, on what, how long, in order
    version: int = VERSION

    def __post_init__(self) -> None:
        names = [*self.files, *(shard.name for shard in self.shards), *(tensor.shard for tensor in self.tensors)]
        for name in names:
            if PurePosixPath(name).name != name or name in ("", ".", "..") or "\\" in name:
                raise ValueError(f"a manifest names files of its own folder, not {name!r}")

    @property
    def rows(self) -> int:
        """Rows of the new tables."""
        return sum(self.counts.values())

    @property
    def layers_trained(self) -> bool:
        """Whether a calibration changed more than rows."""
        return any(run.get("train") in ("rows+norms", "lora", "rows+lora") for run in self.calibrations)

    def write(self, folder: Path) -> None:
        """Write `transplant.json`."""
        state = dataclasses.asdict(self)
        state |= {key: without_folders(state[key]) for key in ("methods", "options")}
        text = json.dumps(state, indent=1, ensure_ascii=False, default=_plain)
        (folder / FILE).write_text(_SECRET.sub("[removed]", text) + "\n", encoding="utf-8", newline="\n")


def without_folders(value: Any) -> Any:
    """Options as they may be told: of a local path, also within `name:key=path`, its last name only."""
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_folders(one) for key, one in value.items()}
    return [without_folders(one) for one in value] if isinstance(value, list | tuple) else value


def describe_input(spec: str, path: Path, names: Sequence[str] = (), **more: Any) -> Input:
    """What the manifest says of an input: a Hub id as it is, a local path by its last name, and hashes of its files.

    `path` is the folder or file that was read; where it lies in a Hub cache the revision is known.
    """
    folder = path if path.is_dir() else path.parent
    found = [folder / name for name in names if (folder / name).is_file()]
    if path.is_file() and path not in found:
        found.append(path)
    snapshot = folder.name if folder.parent.name == "snapshots" else None
    shown = spec if snapshot or not os.path.exists(spec) else Path(spec).resolve().name
    return Input(shown, snapshot, {file.name: file_digest(file) for file in found}, **more)


def describe_output(folder: Path, written: WrittenTensors) -> dict[str, Any]:
    """The part of a manifest that says what must stay true of `folder`: keyword arguments of `Manifest`."""
    return {
        "tied": written.tied,
        "tables": dict(written.tables),
        "tensors": written.tensors,
        "shards": written.shards,
        "files": {name: file_digest(folder / name) for name in _HASHED if (folder / name).is_file()},
    }


def library_versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    made = {"tokenadapt": __version__, "python": platform.python_version(), "platform": platform.machine()}
    for name in ("torch", "transformers", "tokenizers", "safetensors", "numpy", "faiss-cpu"):
        try:
            made[name] = version(name)
        except PackageNotFoundError:
            continue
    return made


def file_digest(path: Path) -> str:
    """Sha256 of a file; a blob of a Hub cache already carries it as its name."""
    known = blob_digest(path)
    if known is not None:
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(8 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder; raises RequestError where there is none, or it is damaged or newer."""
    path = folder / FILE
    if not path.is_file():
        raise RequestError(
            f"{folder} has no {FILE}: it was not made by transplant.", "Name the output of a transplant."
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state.get("version") != VERSION:
            raise RequestError(
                f"The manifest {path} has format {state.get('version')}, this program reads {VERSION}.",
                "Use the version of tokenadapt that wrote it.",
            )
        return _rebuild(state)
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise RequestError(f"The manifest {path} is damaged ({error}).", "Make the folder again.") from error


def _rebuild(state: dict[str, Any]) -> Manifest:
    lists = {"tensors": WrittenTensor, "shards": WrittenShard, "specials": SpecialToken, "changes": Change}
    for key, kind in lists.items():
        state[key] = tuple(kind(**entry) for entry in state[key])
    state["tensors"] = tuple(dataclasses.replace(one, shape=tuple(one.shape)) for one in state["tensors"])
    state["notes"] = tuple(state["notes"])
    state["calibrations"] = tuple(state.get("calibrations", ()))
    state["source"], state["target"] = Input(**state["source"]), Input(**state["target"])
    return Manifest(**state)


def _plain(value: Any) -> Any:
    """Numbers of numpy, paths by their last name, everything else by its text."""
    if isinstance(value, Path):
        return value.name
    return value.item() if hasattr(value, "item") else str(value)
