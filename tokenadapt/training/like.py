"""The frame of an existing tokenizer: everything but its vocabulary, with nothing stale."""

from __future__ import annotations

import json
import re
from typing import Final

from tokenadapt.errors import RequestError
from tokenadapt.training.frame import BYTE_DECODER, ROLES, Frame, with_specials
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import PRESETS, State, split_state
from tokenadapt.vocab.load import LoadedTokenizer

_PLACEHOLDER: Final = re.compile(r"reserved|unused|placeholder|extra_id|<\|?dummy", re.IGNORECASE)


def state_of(loaded: LoadedTokenizer) -> State:
    """The tokenizer as it runs, as tokenizer.json writes it: the files on disk may say something else."""
    state: State = json.loads(loaded.backend.to_str())
    return state


def kind_of(state: State) -> str:
    """Which family a tokenizer is of: bpe, unigram (byte-level), wordpiece, char-bpe or char-unigram."""
    model = state["model"]["type"]
    if model == "WordPiece":
        return "wordpiece"
    byte_level = any(part["type"] == "ByteLevel" for part in parts_of(state["pre_tokenizer"]))
    if model in ("BPE", "Unigram"):
        return (model if byte_level else f"char-{model}").lower()
    raise RequestError(f"A tokenizer of the type {model} cannot be imitated.", "Name a BPE, Unigram or WordPiece one.")


def parts_of(state: State | None) -> list[State]:
    """The components of a sequence, or the one component."""
    if state is None:
        return []
    inner = state.get("pretokenizers") or state.get("normalizers")
    return [part for item in inner for part in parts_of(item)] if inner is not None else [state]


def like_frame(loaded: LoadedTokenizer, options: TrainingOptions) -> Frame:
    """Normaliser, pre-tokeniser, decoder, post-processor, special tokens with flags, roles and chat template.

    Ids are made anew later; reserved and unused tokens, truncation and padding are left out. What changed is noted.
    """
    state = state_of(loaded)
    kind = kind_of(state)
    notes: list[str] = []
    added, dropped = [], 0
    roles = {role: content for role in ROLES if isinstance(content := _role(loaded, role), str)}
    needed = {*roles.values(), *_named(state["post_processor"]), state["model"].get("unk_token")}
    for token in sorted(state["added_tokens"], key=lambda token: token["id"]):
        kept = {key: value for key, value in token.items() if key != "id"}
        if token["content"] not in needed and _is_filler(token, state["model"]):
            dropped += 1
        else:
            added.append(kept)
    if dropped:
        notes.append(f"{dropped} reserved, unused or plain added tokens of {loaded.spec} are left out.")
    words = _text_level(state["pre_tokenizer"], notes) if kind in ("bpe", "unigram") else state["pre_tokenizer"]
    if state["normalizer"] is not None and kind in ("bpe", "unigram"):
        names = ", ".join(part["type"] for part in parts_of(state["normalizer"]))
        notes.append(f"The normaliser of {loaded.spec} ({names}) is kept: text is given back as it leaves it.")
    length = getattr(loaded.fast, "model_max_length", None)
    frame = Frame(
        kind=kind, words=words, final=words, normalizer=state["normalizer"],
        decoder=BYTE_DECODER if kind in ("bpe", "unigram") else state["decoder"],
        post_processor=state["post_processor"], added=tuple(added), roles=roles,
        chat_template=_template(loaded), notes=tuple(notes), model={**state["model"], "vocab": None, "merges": None},
        model_max_length=int(length) if isinstance(length, int | float) and 0 < length < 1e15 else None,
    )  # fmt: skip
    return with_specials(frame, options)


def _is_filler(token: State, model: State) -> bool:
    """Tokens that mean nothing: placeholders, and ordinary pieces of the old vocabulary that were added as well."""
    if _PLACEHOLDER.search(token["content"]):
        return True
    if token["special"] or "<" in token["content"] or "[" in token["content"]:
        return False
    vocab = model["vocab"]
    return not token["content"].strip("▁ \n\t\r") or (isinstance(vocab, dict) and token["content"] in vocab)


def _role(loaded: LoadedTokenizer, role: str) -> str | None:
    content = getattr(loaded.fast, role, None)
    return None if content is None else str(content)


def _template(loaded: LoadedTokenizer) -> str | None:
    template = getattr(loaded.fast, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _named(post_processor: State | None) -> set[str]:
    """The tokens that a post-processor adds."""
    if post_processor is None:
        return set()
    found: set[str] = set()
    for part in post_processor.get("processors", [post_processor]):
        if part["type"] == "TemplateProcessing":
            found |= {text for token in part["special_tokens"].values() for text in token["tokens"]}
        elif part["type"] in ("BertProcessing", "RobertaProcessing"):
            found |= {part["sep"][0], part["cls"][0]}
    return found


def _text_level(state: State | None, notes: list[str]) -> State | None:
    """A byte-level pre-tokeniser without its change to letters, so that it can be followed by other cuts."""
    kept: list[State] = []
    for part in parts_of(state):
        if part["type"] != "ByteLevel":
            kept.append(part)
            continue
        if part.get("add_prefix_space"):
            notes.append("The blank that the pre-tokeniser puts before a text is left out: it is not given back.")
        if part.get("use_regex", True):
            kept.append(split_state(PRESETS["gpt2"].pattern))
    if len(kept) > 1:
        return {"type": "Sequence", "pretokenizers": kept}
    return kept[0] if kept else None


def training_words(frame: Frame) -> State | None:
    """How a trainer cuts normalised text where the tokenizer itself does not: before runs of the space mark."""
    if frame.kind.startswith("char-") and not any(part["type"] == "Metaspace" for part in parts_of(frame.words)):
        mark: State = split_state("▁+[^▁\n]*|[^▁\n]+|\n+")
        return mark if frame.words is None else {"type": "Sequence", "pretokenizers": [*parts_of(frame.words), mark]}
    return frame.words
