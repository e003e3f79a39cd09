"""Every option of tokenizer training as one frozen dataclass, checked at birth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenadapt.documents import CorpusOptions
from tokenadapt.errors import RequestError

TYPES: Final = ("bpe", "unigram", "wordpiece", "sp-bpe", "sp-unigram")
SUPERTOKENS: Final = ("two-stage", "stochastic")
BLOCK_BYTES: Final = 1 << 16  # corpora are read in blocks of this size: small enough for a fine sample


@dataclass(frozen=True)
class TrainingOptions:
    """What `tokenadapt train-tokenizer` may be told; either `corpora` or `counts` is given."""

    corpora: tuple[str, ...]
    output: str
    vocab_size: int
    counts: tuple[str, ...] = ()
    type: str | None = None  # the family of --like, else bpe
    pre_tokenizer: str = "llama3"
    like: str | None = None
    extend: str | None = None
    supertokens: str | None = None
    transition: float = 0.9
    max_words: int = 4
    lengths: tuple[str, ...] = ()
    length_unit: str = "characters"
    unbounded: bool = False
    special: tuple[str, ...] = ()
    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    pad_vocab_to_multiple: int = 1
    min_frequency: int = 2
    min_count: int = 1
    column: str = "text"
    split: str = "train"
    on_error: str = "fail"
    sample_bytes: int | None = None
    holdout_bytes: int = 200_000
    seed: int = 0
    overwrite: bool = False
    revision: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.type is not None:
            _one_of("--type", self.type, TYPES)
        if self.supertokens is not None:
            _one_of("--supertokens", self.supertokens, SUPERTOKENS)
            if self.type not in (None, "bpe"):
                raise RequestError(f"Supertokens are made of merges; --type {self.type} has none.", "Use --type bpe.")
        _one_of("--length-unit", self.length_unit, ("characters", "words"))
        if bool(self.corpora) == bool(self.counts):
            raise RequestError("Exactly one of corpora and --counts is needed.", "Name a corpus, or a counts file.")
        if self.like is not None and self.extend is not None:
            raise RequestError("--like and --extend exclude each other.", "--extend keeps all that --like takes.")
        if self.extend is not None and (self.type not in (None, "bpe") or self.supertokens == "stochastic"):
            raise RequestError("--extend continues merges, on its own or two-stage.", "Leave the other option out.")
        if not 0 < self.transition < 1:
            raise RequestError(f"--transition is {self.transition}.", "Give a share between 0 and 1, such as 0.9.")
        for name in ("vocab_size", "max_words", "pad_vocab_to_multiple", "min_frequency", "min_count"):
            if getattr(self, name) < 1:
                raise RequestError(f"--{name.replace('_', '-')} is {getattr(self, name)}.", "Give a positive number.")

    def reading(self) -> CorpusOptions:
        """How the corpora are read."""
        return CorpusOptions(
            column=self.column, split=self.split, on_error=self.on_error, sample_bytes=self.sample_bytes,
            seed=self.seed, block_bytes=BLOCK_BYTES,
        )  # fmt: skip


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RequestError(f"{option} is {value!r}.", f"Use one of: {', '.join(allowed)}.")
