"""The files: hashes against the manifest, and one story told by all ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenadapt.checkpoint.id_keys import ROLES, TEXT, Names, names
from tokenadapt.checkpoint.id_values import flat
from tokenadapt.checkpoint.ids import CONFIG, GENERATION, end_ids, stale_ids
from tokenadapt.checkpoint.manifest import file_digest
from tokenadapt.checkpoint.place import digest_range
from tokenadapt.checkpoint.shards import TensorRef
from tokenadapt.checkpoint.tokenizer_files import STALE, reads_back_otherwise
from tokenadapt.checkpoint.verify.report import Check, judge, skipped
from tokenadapt.checkpoint.verify.subject import Subject
from tokenadapt.errors import TokenAdaptError
from tokenadapt.progress import SILENT, Progress


def id_checks(subject: Subject) -> Iterator[Check]:
    """Checks that need the small files only: made at every level."""
    file = subject.folder / "tokenizer.json"
    if not file.is_file():
        yield judge("tokenizer", ["tokenizer.json is missing"])
        return
    try:
        vocabulary = subject.tokenizer.get_vocab(with_added_tokens=True)
    except Exception as error:  # the Rust side raises bare Exception
        yield judge("tokenizer", [f"tokenizer.json cannot be read ({str(error)[:100]})"])
        return
    rows = subject.checkpoint.rows
    problems = [*_no_bijection(file), *_not_returned(subject, vocabulary)]
    yield judge("ids and tokens", problems, f"{len(vocabulary):,} tokens")
    outside = sorted(token for token, number in vocabulary.items() if number >= rows)
    yield judge("ids inside the table", (f"{token!r} has no row" for token in outside), f"{rows:,} rows")
    yield judge("special ids", _special_ids(subject, vocabulary), _ends(subject))
    if subject.checkpoint.kind != "masked" and not _end_of_text(subject):
        yield judge("end of text", ["no token ends a text: generation runs to its limit"], verdict="warning")


def file_checks(subject: Subject, progress: Progress = SILENT) -> Iterator[Check]:
    """Hashes of everything that was written or left."""
    stale = [f"{name} belongs to another tokenizer" for name in STALE if (subject.folder / name).exists()]
    yield judge("stale files", stale)
    if subject.manifest is None:
        yield skipped("file hashes", "there is no transplant.json to compare with")
    else:
        yield judge("file hashes", _changed_files(subject.folder, subject.manifest.files), _count(subject))
    yield _untouched(subject, progress)


def loading_check(subject: Subject) -> Check:
    """What users load is what `tokenizer.json` says."""
    differing = reads_back_otherwise(subject.folder, subject.tokenizer)
    return judge("AutoTokenizer", [differing] if differing else [], "ids of tokenizer.json")


def _count(subject: Subject) -> str:
    return f"{len(subject.manifest.files)} files" if subject.manifest else ""


def _changed_files(folder: Path, known: Mapping[str, str]) -> Iterator[str]:
    for name, digest in known.items():
        if not (folder / name).is_file():
            yield f"{name} is missing"
        elif file_digest(folder / name) != digest:
            yield f"{name} has changed since it was written"


def _untouched(subject: Subject, progress: Progress) -> Check:
    """Every tensor that is no vocabulary has the bytes that the source had."""
    if subject.manifest is None and subject.source is None:
        return skipped("untouched tensors", "neither a transplant.json nor the source says what they were")
    known = {tensor.name: tensor for tensor in subject.manifest.tensors} if subject.manifest else {}
    whole = {shard.name: shard.sha256 for shard in subject.manifest.shards} if subject.manifest else {}
    theirs = _their_tensors(subject)
    tables = {ref.name for ref in (*subject.checkpoint.tables.values(), *subject.checkpoint.biases)}
    tables |= {tensor.name for tensor in known.values() if tensor.new}
    refs = [ref for shard in subject.checkpoint.shards for ref in shard.tensors if ref.name not in tables]
    problems, compared, seen = [], 0, set()
    with progress.stage("verify untouched tensors", sum(ref.nbytes for ref in refs), "bytes") as advance:
        for ref in refs:
            expected = known[ref.name].sha256 if ref.name in known else None
            if expected is None and ref.name in theirs:
                expected = _digest(*theirs[ref.name], ref)
            if expected is not None:
                compared += 1
                if digest_range(subject.checkpoint.path_of(ref), ref.offset, ref.nbytes) != expected:
                    problems.append(f"{ref.name} differs from the source's")
            elif whole.get(ref.shard) and ref.shard not in seen:
                seen.add(ref.shard)
                if file_digest(subject.folder / ref.shard) != whole[ref.shard]:
                    problems.append(f"the shard {ref.shard} differs from the source's")
            advance(ref.nbytes)
    compared += sum(ref.shard in seen for ref in refs)
    if refs and not compared:
        return skipped("untouched tensors", "no hash of them was recorded; --source compares them with the source")
    return judge("untouched tensors", problems, f"{compared:,} of {len(refs):,} byte-identical")


def _their_tensors(subject: Subject) -> dict[str, tuple[Path, TensorRef]]:
    if subject.source is None:
        return {}
    return {ref.name: (shard.path, ref) for shard in subject.source.shards for ref in shard.tensors}


def _digest(path: Path, ref: TensorRef, ours: TensorRef) -> str:
    same = (ref.dtype, ref.shape) == (ours.dtype, ours.shape)
    return digest_range(path, ref.offset, ref.nbytes) if same else "another shape"


def _no_bijection(file: Path) -> Iterator[str]:
    """One token, one id, in the file itself: the library that reads it keeps the last of two in silence."""
    state = json.loads(file.read_text(encoding="utf-8"))
    model = state.get("model", {}).get("vocab", {})
    entries = list(model.items()) if isinstance(model, dict) else [(entry[0], i) for i, entry in enumerate(model)]
    for number, count in Counter(number for _, number in entries).items():
        if count > 1:
            yield f"id {number} belongs to {count} tokens"
    of_token = dict(entries)
    of_id = {number: token for token, number in entries}
    for added in state.get("added_tokens", ()):
        token, number = added["content"], added["id"]
        if of_token.get(token, number) != number or of_id.get(number, token) != token:
            yield f"the added token {token!r} and id {number} are not each other's"


def _not_returned(subject: Subject, vocabulary: Mapping[str, int]) -> Iterator[str]:
    for token, number in vocabulary.items():
        if subject.tokenizer.id_to_token(number) != token:
            yield f"id {number} is {subject.tokenizer.id_to_token(number)!r}, not {token!r}"


def _special_ids(subject: Subject, vocabulary: Mapping[str, int]) -> Iterator[str]:
    """Stale ids: outside the table, of no token, of an ordinary token, or other ones than the tokenizer's own."""
    ids = set(vocabulary.values())
    control = set(subject.tokenizer.get_added_tokens_decoder())
    own = _tokenizer_roles(subject, vocabulary)
    for file, config in ((CONFIG, subject.checkpoint.config), (GENERATION, subject.checkpoint.generation_config)):
        if config is None:
            continue
        yield from stale_ids(config, subject.checkpoint.rows, file)
        for key, value in _named(config):
            for token in flat(value):
                if token >= 0 and token not in ids:
                    yield f"{file} {key} names {token}, which no token has"
            yield from (f"{file} {line}" for line in _wrong_role(key, value, own, control))


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        kind = names(key, value)
        if kind is Names.BLOCK and key in TEXT:
            yield from _named(value)
        elif kind in (Names.ROLE, Names.IDS):
            yield key, value


def _wrong_role(key: str, value: Any, own: Mapping[str, int], control: set[int]) -> Iterator[str]:
    role = ROLES.get(key)
    named = [token for token in flat(value) if token >= 0]
    if role is None or not named:
        return
    ordinary = [token for token in named if token not in control and token != own.get(role)]
    if ordinary:
        yield f"{key} names {ordinary[0]}, an ordinary token"
    elif role in own and own[role] not in named:
        yield f"{key} is {value}, the tokenizer's {role} is {own[role]}"


def _tokenizer_roles(subject: Subject, vocabulary: Mapping[str, int]) -> dict[str, int]:
    file = subject.folder / "tokenizer_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise TokenAdaptError(f"{file} is damaged ({error}).", "Make the folder again.") from error
    found = {}
    for role in dict.fromkeys(ROLES.values()):
        token = settings.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token in vocabulary:
            found[role] = vocabulary[token]
    return found


def _end_of_text(subject: Subject) -> tuple[int, ...]:
    return end_ids(subject.checkpoint.generation_config) or end_ids(subject.checkpoint.config)


def _ends(subject: Subject) -> str:
    ends = _end_of_text(subject)
    return f"ends at {', '.join(map(str, ends))}" if ends else ""
