"""Train in a process of its own, show its merges, refuse what its 32-bit counters cannot hold."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.progress import SILENT, Progress
from tokenadapt.training.spm import SentencePieceJob
from tokenadapt.training.worker import Job

PAIR_LIMIT: Final = 2**31 - 1  # the stock trainer counts pairs in signed 32 bits


def run_job(job: Job | SentencePieceJob, *, name: str = "merges", progress: Progress = SILENT) -> dict[str, Any]:
    """The trained model as tokenizer.json writes it; the process is ended at once on any interrupt.

    Raises RequestError where a counter would overflow, TokenAdaptError where the trainer fails.
    """
    check_counters(job)
    with tempfile.TemporaryDirectory(prefix="tokenadapt-train-") as scratch:
        folder = Path(scratch)
        (folder / "job.pickle").write_bytes(pickle.dumps(job))
        command = [sys.executable, "-m", "tokenadapt.training.worker", str(folder)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment()
        ) as process:
            try:
                said = _follow(process, job, name, progress)
            finally:
                process.kill()
        result = folder / "model.json"
        if not result.is_file():
            last = next((line for line in reversed(said) if line.strip()), f"exit code {process.returncode}")
            raise TokenAdaptError(f"The trainer failed: {last}.", "Train on less text, or run with --debug.")
        model: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return model


def _environment() -> dict[str, str]:
    """The child's environment: this package first, and threads, which change no result."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    parallel = os.environ.get("TOKENIZERS_PARALLELISM", "true")
    return {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": parallel}


def _follow(process: subprocess.Popen[str], job: Job | SentencePieceJob, name: str, progress: Progress) -> list[str]:
    """Read the trainer's progress lines until it ends; returns what it said besides, the last lines."""
    assert process.stderr is not None
    said: list[str] = []
    done = 0
    with progress.stage(name, total=max(1, job.vocab_size - len(job.alphabet)), unit="merges") as advance:
        for line in process.stderr:
            try:
                report = json.loads(line)
                if report["stage"] == "Compute merges" and report["current"] > done:
                    advance(report["current"] - done)
                    done = report["current"]
            except (ValueError, KeyError, TypeError):
                said = [*said[-20:], line.strip()]
    process.wait()
    return said


def check_counters(job: Job | SentencePieceJob) -> None:
    """Refuse a corpus whose counts could overflow the stock trainer's counters.

    No pair of tokens is more frequent than the pair of letters at its seam, and merges only lower counts: so the
    most frequent pair of neighbouring letters bounds everything that is counted.
    """
    if isinstance(job, SentencePieceJob):
        return  # 64 bits wide
    letters = sum(len(word) * count for word, count in zip(job.words, job.counts, strict=True))
    if letters <= PAIR_LIMIT:
        return
    pairs: Counter[str] = Counter()
    for word, count in zip(job.words, job.counts, strict=True):
        for at in range(len(word) - 1):
            pairs[word[at : at + 2]] += count
    worst = max(pairs.values(), default=0)
    if worst > PAIR_LIMIT:
        raise RequestError(
            f"The corpus holds one pair {worst:,} times; the trainer would overflow silently above {PAIR_LIMIT:,}.",
            "Train on a sample of the corpus: --sample-bytes.",
        )
