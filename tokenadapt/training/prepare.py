"""What a request needs before any text is read: the frame of the tokenizer, and how text is cut for its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokenadapt.errors import RequestError
from tokenadapt.training.counts import Counts, Cut, load_counts
from tokenadapt.training.extend import check_extendable, unchanged
from tokenadapt.training.frame import (
    Frame,
    byte_level_frame,
    sentencepiece_frame,
    stretched,
    wordpiece_frame,
)
from tokenadapt.training.like import kind_of, like_frame, state_of, training_words
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import State
from tokenadapt.vocab.load import LoadedTokenizer, load_tokenizer


@dataclass(frozen=True)
class Prepared:
    """The frame, the cut, and the tokenizer that was imitated or extended, if any."""

    frame: Frame
    cut: Cut
    base: LoadedTokenizer | None = None
    extended: State | None = None  # the state of the tokenizer to extend


def prepare(options: TrainingOptions) -> Prepared:
    """Resolve --type, --like, --extend and --supertokens; RequestError where they do not fit each other."""
    named = options.extend or options.like
    base = None
    if named is not None:
        base = load_tokenizer(named, revision=options.revision, trust_remote_code=options.trust_remote_code)
    state = check_extendable(base, options) if base is not None and options.extend is not None else None
    frame = _frame(options, base)
    if state is not None:
        frame = unchanged(frame, state)
    if options.supertokens is not None:
        if frame.kind != "bpe":
            raise RequestError(f"Supertokens need byte-level BPE; {named} is {frame.kind}.", "Leave --like out.")
        frame = replace(frame, final=None) if options.unbounded else stretched(frame)
        return Prepared(frame, Cut("stretch", frame.final, frame.normalizer, frame.markers), base, state)
    return Prepared(frame, Cut("word", training_words(frame), frame.normalizer, frame.markers), base, state)


def _frame(options: TrainingOptions, base: LoadedTokenizer | None) -> Frame:
    if base is not None:
        kind = kind_of(state_of(base))
        if options.type not in (None, kind, kind.replace("char-", "sp-")):
            raise RequestError(f"--type {options.type} does not fit {base.spec}, which is {kind}.", "Leave --type out.")
        return like_frame(base, options)
    if options.type == "wordpiece":
        return wordpiece_frame(options)
    if options.type in ("sp-bpe", "sp-unigram"):
        return sentencepiece_frame(options)
    return byte_level_frame(options, options.type or "bpe")


def stored_counts(prepared: Prepared, paths: Sequence[str]) -> Counts:
    """Counts files for this request; RequestError where their text was cut in a way that does not fit."""
    counts = load_counts([Path(path) for path in paths])
    cut = prepared.cut
    hint = "Count again with the options of this training: tokenadapt count."
    if counts.cut.normalizer != cut.normalizer:
        raise RequestError("The counts were made with another normaliser.", hint)
    fits = counts.cut.kind == cut.kind and counts.cut.pre_tokenizer == cut.pre_tokenizer
    if not fits and not (counts.cut.kind == "stretch" and cut.kind == "word" and prepared.frame.kind == "bpe"):
        raise RequestError(f"The counts are of {counts.cut.kind}s cut in another way than this training needs.", hint)
    return counts
