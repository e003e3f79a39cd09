"""Continue the merges of an existing byte-level BPE tokenizer on new text (arXiv 2512.03989).

Its ids stay as they are; new tokens follow the last id. They are made by merges, not added as whole strings, so that
text is cut as if the vocabulary had been larger from the start, and each new token is reachable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tokenadapt.errors import RequestError
from tokenadapt.progress import Progress
from tokenadapt.training.assemble import Assembled
from tokenadapt.training.bpe import ALPHABET, Merges, as_pairs
from tokenadapt.training.counts import Counts
from tokenadapt.training.frame import Frame, added_token, byte_level
from tokenadapt.training.like import kind_of, state_of
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import State, build
from tokenadapt.training.supertokens import TwoStage, continue_merges
from tokenadapt.vocab.letters import from_letters
from tokenadapt.vocab.load import LoadedTokenizer


def check_extendable(loaded: LoadedTokenizer, options: TrainingOptions) -> State:
    """The state of a tokenizer whose merges can be continued; RequestError for any other."""
    state = state_of(loaded)
    kind = kind_of(state)
    if kind != "bpe":
        why = "has no merges" if kind in ("wordpiece", "unigram", "char-unigram") else "merges characters, not bytes"
        raise RequestError(
            f"{loaded.spec} cannot be extended: its {state['model']['type']} model {why}.",
            "Name a byte-level BPE tokenizer, or train a new one with --like.",
        )
    have = _ids(state)
    whole = _rounded(options)
    if whole <= len(have):
        raise RequestError(
            f"{loaded.spec} has {len(have):,} tokens already; --vocab-size {options.vocab_size:,} adds none.",
            "Give the size that the extended vocabulary shall have.",
        )
    return state


def extend(state: State, frame: Frame, counts: Counts, options: TrainingOptions, progress: Progress) -> Assembled:
    """The tokenizer with more merges, up to `--vocab-size` ids."""
    model = state["model"]
    old = Merges(_letters(model["vocab"]), tuple(as_pairs(model["merges"])))
    ids = _ids(state)
    lacking = [text for text in (*frame.markers, *ALPHABET) if text not in ids]
    wanted = _rounded(options) - len(ids) - len(lacking)
    rules = TwoStage(max_words=options.max_words, min_frequency=options.min_frequency)
    grown = continue_merges(old, counts, len(old.tokens) + wanted, rules, progress)
    grown = grown.without(lambda token: token in frame.markers)
    return _assemble(state, frame, grown.merges[len(old.merges) :], options)


def _assemble(state: State, frame: Frame, new: Sequence[tuple[str, str]], options: TrainingOptions) -> Assembled:
    ids = _ids(state)
    following = max(ids.values()) + 1
    vocab, added = dict(state["model"]["vocab"]), list(state["added_tokens"])
    specials = [token for token in frame.added if token["content"] not in ids]
    for token in dict.fromkeys([*ALPHABET, *(left + right for left, right in new)]):  # all bytes, always
        if token not in vocab:
            vocab[token] = following
            following += 1
    while specials or following % options.pad_vocab_to_multiple:
        made = specials.pop(0) if specials else added_token(f"<|reserved_{following}|>")
        added.append({"id": following, **made})
        following += 1
    old = state["model"]["merges"]
    texts = bool(old) and isinstance(old[0], str)
    merges = [*old, *(f"{left} {right}" if texts else [left, right] for left, right in new)]
    grown = {
        **state, "truncation": None, "padding": None, "added_tokens": added,
        "model": {**state["model"], "vocab": vocab, "merges": merges},
    }  # fmt: skip
    notes = list(frame.notes)
    if options.supertokens is not None:
        grown["pre_tokenizer"] = byte_level(frame.final)
        if cut := _cut_tokens(frame.final, state["model"]["vocab"]):
            notes.append(f"{cut:,} old tokens go over line breaks or digit groups, where text is now cut: unused.")
    return Assembled(grown, frame.roles, frame.chat_template, frame.model_max_length, notes=tuple(notes))


def _cut_tokens(final: State | None, vocab: dict[str, int]) -> int:
    """How many tokens of whole characters the new pre-tokeniser always cuts."""
    splitter, cut = build(final), 0
    for token in vocab:
        try:
            text = (from_letters(token) or b"").decode()
        except UnicodeDecodeError:
            continue
        cut += splitter is not None and len(splitter.pre_tokenize_str(text)) > 1
    return cut


def unchanged(frame: Frame, state: State) -> Frame:
    """The frame with all added tokens of the tokenizer, fillers too: an extension leaves out nothing."""
    old = tuple({key: value for key, value in token.items() if key != "id"} for token in state["added_tokens"])
    have = {token["content"] for token in old}
    new = tuple(token for token in frame.added if token["content"] not in have)
    return replace(frame, added=(*old, *new), notes=())


def _letters(vocab: dict[str, int]) -> tuple[str, ...]:
    """The byte letters in the order of their ids, as ties were broken, and then those that the vocabulary lacks."""
    return tuple(sorted(ALPHABET, key=lambda letter: vocab.get(letter, len(vocab))))


def _ids(state: State) -> dict[str, int]:
    return {**state["model"]["vocab"], **{token["content"]: token["id"] for token in state["added_tokens"]}}


def _rounded(options: TrainingOptions) -> int:
    return -(-options.vocab_size // options.pad_vocab_to_multiple) * options.pad_vocab_to_multiple
