"""The trainer's own process: reads a job, trains, writes the model, and ends when its parent does.

Training holds no Python code that an interrupt could reach, so the parent stops it by ending this process.
Run as `python -m tokenadapt.training.worker JOB`; only `engine` does.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenadapt.training.spm import SentencePieceJob, train_sentencepiece

BLANK: Final = " "
_REPLAY: Final = 1 << 16  # characters of one replayed text


@dataclass(frozen=True)
class Job:
    """What a trainer gets: words (free of blanks) with their counts, and the trainer's options."""

    trainer: str  # bpe or wordpiece
    words: Sequence[str]
    counts: Sequence[int]
    vocab_size: int
    alphabet: Sequence[str]
    special: Sequence[str] = ()
    min_frequency: int = 2


def replay(words: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    """Each word as often as it was counted, since the trainer's Python face takes only text."""
    batch: list[str] = []
    size = 0
    for word, count in zip(words, counts, strict=True):
        spaced = word + BLANK
        at_once = max(1, _REPLAY // len(spaced))
        while count > 0:
            text = spaced * min(count, at_once)
            batch.append(text)
            size += len(text)
            count -= at_once
            if size >= _REPLAY:
                yield "".join(batch)
                batch, size = [], 0
    if batch:
        yield "".join(batch)


def train(job: Job, progress_format: str = "silent") -> dict[str, Any]:
    """Run a stock trainer; returns the model as tokenizer.json writes it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    shared: dict[str, Any] = {
        "vocab_size": job.vocab_size,
        "special_tokens": list(job.special),
        "initial_alphabet": list(job.alphabet),
        "show_progress": False,
    }
    if job.trainer == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token=job.special[0]))
        trainer: Any = trainers.WordPieceTrainer(**shared, min_frequency=job.min_frequency)
    else:
        tokenizer = Tokenizer(models.BPE())
        trainer = trainers.BpeTrainer(**shared, min_frequency=job.min_frequency, progress_format=progress_format)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(BLANK, "removed")
    tokenizer.train_from_iterator(replay(job.words, job.counts), trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return model


def _end_with_parent(folder: Path) -> None:
    sys.stdin.buffer.read()  # ends when the parent's end of the pipe closes, however the parent ended
    shutil.rmtree(folder, ignore_errors=True)  # nobody else is left to do it
    os._exit(1)


def main() -> None:
    """Train the job in the folder given, and leave `model.json` there."""
    folder = Path(sys.argv[1])
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    job = pickle.loads((folder / "job.pickle").read_bytes())  # noqa: S301  # written by our parent a moment ago
    model = train_sentencepiece(job) if isinstance(job, SentencePieceJob) else train(job, progress_format="json")
    (folder / "model.json").write_text(json.dumps(model), encoding="utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
