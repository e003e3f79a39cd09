"""SentencePiece's trainer on counts: for its own families, and for every Unigram model.

The stock Unigram trainer is not deterministic: its vocabulary differs from run to run. SentencePiece takes counts as
tab-separated text, 64 bits wide, so nothing is replayed and nothing overflows. Its number of threads is fixed, since
sums over threads are part of its result.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

THREADS: Final = 4
_UNTRAINABLE: Final = ("\t", "\n", "\r", "\0")  # they end a field or a row; byte fallback spells them


@dataclass(frozen=True)
class SentencePieceJob:
    """Words with counts, and the settings of the SentencePiece trainer."""

    words: Sequence[str]
    counts: Sequence[int]
    vocab_size: int
    settings: Mapping[str, Any]
    trainer: str = "sentencepiece"
    alphabet: Sequence[str] = ()


def train_sentencepiece(job: SentencePieceJob) -> dict[str, Any]:
    """Run the trainer; `model` is the `.model` file in base64, `pieces` its pieces with scores and types."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    shared = {
        "vocab_size": job.vocab_size, "input_format": "tsv", "num_threads": THREADS, "minloglevel": 2,
        "normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False,
        "split_by_unicode_script": False, "split_by_number": False, "max_sentence_length": 1 << 20,
        "max_sentencepiece_length": 32, "input_sentence_size": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="tokenadapt-sp-") as scratch:
        table = Path(scratch) / "counts.tsv"
        with table.open("w", encoding="utf-8", newline="") as file:
            for word, count in zip(job.words, job.counts, strict=True):
                if not any(char in word for char in _UNTRAINABLE):
                    file.write(f"{word}\t{count}\n")
        settings = {**shared, **job.settings, "input": str(table), "model_prefix": str(Path(scratch) / "m")}
        try:
            sentencepiece.SentencePieceTrainer.train(**settings)
        except RuntimeError as error:
            if "ocabulary size" not in str(error):
                raise
            # the corpus gives fewer pieces than asked for; the caller says so
            sentencepiece.SentencePieceTrainer.train(**settings, hard_vocab_limit=False)
        data = (Path(scratch) / "m.model").read_bytes()
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(data)
    pieces = [[piece.piece, piece.score, piece.type] for piece in proto.pieces]
    return {"model": base64.b64encode(data).decode(), "pieces": pieces}
