"""`transplant.plan`: how every row was made, as ids and weights, so that it serves another checkpoint and `explain`.

A safetensors file under a name that no engine globbing `*.safetensors` loads. It holds no numbers of a model: scales,
shifts and biases are made again where the plan is applied, by the calibration that is named here.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from tokenadapt.checkpoint.manifest import without_folders
from tokenadapt.errors import RequestError
from tokenadapt.plan import MEAN, Dense, Plan, Role
from tokenadapt.vocab.types import Alignment, ByteVocab, How, Ids

FILE: Final = "transplant.plan"
VERSION: Final = 1
_REDO: Final = "Make the plan again with: tokenadapt transplant."
Recorded = Plan | Literal["dense"]


@dataclass(frozen=True)
class SavedPlan:
    """Everything that making the same rows from another table takes."""

    alignment: Alignment
    made: Mapping[Role, Recorded]  # "dense": rows that are no mix of old rows, not stored
    source_hash: str  # of the source vocabulary: ids must mean the same where the plan is applied
    target_hash: str
    methods: Mapping[Role, str]
    calibration: str = ""  # what follows the sums; empty: nothing
    options: Mapping[str, Any] = field(default_factory=dict)
    scaled: Mapping[Role, NDArray[np.bool_]] = field(default_factory=dict)  # (M,): rows whose norm was calibrated
    source_tokens: tuple[bytes, ...] = ()  # what each old id stands for, so that rows can be explained

    def plans(self) -> dict[Role, Plan]:
        """The plans by role; raises RequestError where rows are dense."""
        dense = [role for role, made in self.made.items() if made == "dense"]
        if dense:
            raise RequestError(
                f"The {dense[0]} rows of this plan were made by {self.methods.get(dense[0], 'a method')}, "
                "which computes numbers for one checkpoint and leaves no mix of old rows to apply to another.",
                "Run tokenadapt transplant on the other checkpoint.",
            )
        return {role: made for role, made in self.made.items() if isinstance(made, Plan)}


def vocabulary_hash(vocabulary: ByteVocab) -> str:
    """A digest of what every id stands for: equal where plans can be exchanged."""
    digest = hashlib.sha256()
    for part in _entries(vocabulary):
        digest.update(part)
    return digest.hexdigest()


def _shown(vocabulary: ByteVocab, index: int) -> bytes:
    spelled = vocabulary.token_bytes[index]
    return spelled if spelled is not None else (vocabulary.text[index] or "").encode("utf-8", "surrogatepass")


def _pack(tokens: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """Ragged bytes as two arrays."""
    end = np.cumsum([len(token) for token in tokens], dtype=np.int64)
    return {"source.bytes": np.frombuffer(b"".join(tokens), np.uint8), "source.end": end}


def _unpack(tensors: Mapping[str, NDArray[Any]]) -> tuple[bytes, ...]:
    data, end = tensors["source.bytes"].tobytes(), tensors["source.end"].tolist()
    return tuple(data[first:last] for first, last in zip([0, *end], end, strict=False))


def _entries(vocabulary: ByteVocab) -> Iterator[bytes]:
    for index, kind in enumerate(vocabulary.kind.tolist()):
        shown = _shown(vocabulary, index)
        yield struct.pack("<BBI", kind, vocabulary.token_bytes[index] is not None, len(shown)) + shown


def save_plan(
    path: Path,
    alignment: Alignment,
    made: Mapping[Role, Plan | Dense],
    *,
    source: ByteVocab,
    target: ByteVocab,
    methods: Mapping[Role, str],
    calibration: str = "",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write a plan to `path`.

    Scales, shifts, biases and the mean row are left out by design: `calibration` names what made them for all rows,
    and a plan that is scaled says which rows are, so that a method that calibrates some of its rows can be repeated
    elsewhere.
    """
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {
        "alignment.how": np.ascontiguousarray(alignment.how, np.uint8),
        "alignment.source_id": np.ascontiguousarray(alignment.source_id, np.int64),
    }
    tensors |= _pack([_shown(source, index) for index in range(len(source))])
    for role, one in made.items():
        if isinstance(one, Plan):
            tensors[f"{role}.start"] = np.ascontiguousarray(one.start, np.int64)
            tensors[f"{role}.source_id"] = np.ascontiguousarray(one.source_id, np.int64)
            tensors[f"{role}.weight"] = np.ascontiguousarray(one.weight, np.float32)
            if one.scale is not None:
                tensors[f"{role}.scaled"] = np.ascontiguousarray(one.scale != 1)
    about = {
        "version": VERSION,
        "source_vocabulary": vocabulary_hash(source),
        "target_vocabulary": vocabulary_hash(target),
        "roles": {role: "plan" if isinstance(one, Plan) else "dense" for role, one in made.items()},
        "methods": without_folders(methods),
        "calibration": calibration,
        "options": without_folders(options or {}),
        "notes": {str(number): note for number, note in sorted(alignment.notes.items())},
        "spelled_alike": alignment.spelled_alike,
    }
    written = save(tensors, {"tokenadapt": json.dumps(about, sort_keys=True, default=str)})
    path.write_bytes(written)  # save_file would make it readable by its owner only


def mark_adjusted(path: Path, ids: Ids) -> dict[str, int]:
    """Note in a written plan that copied rows `ids` were changed afterwards; gives the new counts by reason."""
    from safetensors.numpy import save

    tensors, about = _read(path)
    how = tensors["alignment.how"].copy()
    taken = np.isin(how, (How.COPIED, How.SPECIAL, How.MAPPED))
    taken[np.setdiff1d(np.arange(len(how)), ids)] = False
    how[taken] = How.ADJUSTED
    path.write_bytes(save({**tensors, "alignment.how": how}, {"tokenadapt": json.dumps(about, sort_keys=True)}))
    return Alignment(tensors["alignment.source_id"], how).counts()


def load_plan(path: Path) -> SavedPlan:
    """Read a plan from a file, or from a folder that holds one; raises RequestError where it is none or damaged."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise RequestError(f"There is no saved plan at {path}.", f"Name a folder made by transplant, or its {FILE}.")
    tensors, about = _read(file)
    if about.get("version") != VERSION:
        raise RequestError(f"The plan {file} has format {about.get('version')}, this program reads {VERSION}.", _REDO)
    try:
        return _rebuild(tensors, about)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise RequestError(f"The plan {file} contradicts itself ({error}).", _REDO) from error


def _read(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = json.loads((opened.metadata() or {}).get("tokenadapt", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise RequestError(f"The plan {file} cannot be read ({error}).", _REDO) from error
    if not isinstance(about, dict):
        raise RequestError(f"The file {file} is no plan of this program.", f"Name a {FILE}.")
    return tensors, about


def _rebuild(tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> SavedPlan:
    notes = {int(number): str(note) for number, note in about["notes"].items()}
    alignment = Alignment(
        tensors["alignment.source_id"].astype(np.int64),
        tensors["alignment.how"].astype(np.uint8),
        notes,
        int(about["spelled_alike"]),
    )
    made: dict[Role, Recorded] = {}
    for role, kind in about["roles"].items():
        if role not in ("input", "output"):
            raise ValueError(f"unknown role {role}")
        name = cast(Role, role)
        made[name] = "dense" if kind == "dense" else _plan(tensors, name, len(alignment.missing))
    return SavedPlan(
        alignment,
        made,
        source_hash=str(about["source_vocabulary"]),
        target_hash=str(about["target_vocabulary"]),
        methods=about["methods"],
        calibration=str(about["calibration"]),
        options=about["options"],
        scaled=_scaled(tensors, made),
        source_tokens=_unpack(tensors),
    )


def _scaled(tensors: Mapping[str, NDArray[Any]], made: Mapping[Role, Recorded]) -> dict[Role, NDArray[np.bool_]]:
    found = {role: tensors[f"{role}.scaled"].astype(np.bool_) for role in made if f"{role}.scaled" in tensors}
    for role, mask in found.items():
        plan = made[role]
        if not isinstance(plan, Plan) or mask.shape != (len(plan.start) - 1,):
            raise ValueError(f"the {role} plan marks {len(mask)} scaled rows")
    return found


def _plan(tensors: Mapping[str, NDArray[Any]], role: Role, missing: int) -> Plan:
    start, source_id = tensors[f"{role}.start"].astype(np.int64), tensors[f"{role}.source_id"].astype(np.int64)
    if len(start) != missing + 1 or (np.diff(start) < 0).any():
        raise ValueError(f"the {role} plan has {len(start) - 1} runs for {missing} missing tokens")
    if len(source_id) and source_id.min() < MEAN:
        raise ValueError(f"the {role} plan names a negative id")
    return Plan(start, source_id, tensors[f"{role}.weight"].astype(np.float32))
