"""From options to texts of the source's own: prompts, budget, cache, and back from ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenadapt.calibration.examples import Text
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.pair import Pair
from tokenadapt.calibration.speaker import Speaker
from tokenadapt.calibration.writing import Manner, Writer, key_of
from tokenadapt.checkpoint.ids import end_ids
from tokenadapt.checkpoint.place import digest_range
from tokenadapt.errors import RequestError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.spaces.shelf import Shelf, shelf

_SPARE = 17 / 16  # what is held out must be written too


def own_texts(
    pair: Pair,
    teacher: Speaker,
    options: CalibrationOptions,
    tokens: int,
    progress: Progress = SILENT,
    kept: Shelf | None = None,
) -> list[Text]:
    """Texts that the source model writes: as many tokens as asked, and some more to hold out."""
    prompts = _prompts(pair, options)
    positions = min(teacher.body.positions, 1024)
    manner = Manner(round(tokens * _SPARE), positions, options.temperature, options.seed)
    key = key_of(fingerprint(pair), manner, prompts)
    kept = kept or shelf()
    found = kept.get(key)
    if found is None:
        ids = writer(pair, teacher).write(prompts, manner, progress)
        found = [text for text in as_text(pair, ids) if text.strip()]
        kept.put(key, found)
    return [Text(text, f"own text {number + 1}") for number, text in enumerate(found)]


def writer(pair: Pair, teacher: Speaker) -> Writer:
    """A writer that stops where the source model stops."""
    ends = [*end_ids(pair.source.generation_config), *end_ids(pair.source.config)]
    return Writer(teacher, [*ends, *(pair.teacher.roles[role] for role in ("eos",) if role in pair.teacher.roles)])


def begin(pair: Pair) -> list[int]:
    """What a text of the source begins with: its begin token, else its end token."""
    roles = pair.teacher.roles
    found = roles.get("bos", roles.get("eos"))
    return [found] if found is not None else []


def as_text(pair: Pair, texts: Sequence[Sequence[int]]) -> list[str]:
    """Ids of the source as text, without control tokens."""
    backend = pair.teacher_tokenizer.backend
    return [backend.decode(list(ids), skip_special_tokens=True) for ids in texts]


def fingerprint(pair: Pair) -> str:
    """What the source model is: hashes of its config and of the first bytes of every shard's tensors."""
    parts = [repr(sorted(pair.source.config.items(), key=lambda item: item[0]))]
    for shard in pair.source.shards:
        first = shard.tensors[0]
        parts.append(f"{shard.name}:{shard.size}:{digest_range(shard.path, first.offset, min(first.nbytes, 1 << 20))}")
    return "\n".join(parts)


def _prompts(pair: Pair, options: CalibrationOptions) -> list[list[int]]:
    start = begin(pair)
    if options.prompts is None:
        if not start:
            raise RequestError(
                "The source model has neither a begin nor an end token to write from.", "Give --prompts FILE."
            )
        return [start]
    try:
        lines = [line for line in Path(options.prompts).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"The prompts {options.prompts} cannot be read ({error}).", "Give a text file.") from error
    if not lines:
        raise RequestError(f"{options.prompts} holds no prompt.", "Write one a line.")
    return [[*start, *ids] for ids in pair.teacher.encode(lines)]
