"""Frame and trained model to one tokenizer.json, with every id made anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from tokenadapt.errors import TokenAdaptError
from tokenadapt.training.bpe import Merges
from tokenadapt.training.frame import Frame, added_token, byte_level
from tokenadapt.training.presets import State


@dataclass(frozen=True)
class Assembled:
    """A finished tokenizer: its state, and what belongs beside it."""

    state: State
    roles: Mapping[str, str]
    chat_template: str | None = None
    model_max_length: int | None = None
    model_file: bytes | None = None  # SentencePiece's own format, where the family has one
    notes: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.ids())

    def ids(self) -> dict[str, int]:
        """Every token's id, special ones included."""
        return dict(self.tokenizer().get_vocab(with_added_tokens=True))

    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""
        return Tokenizer.from_str(json.dumps(self.state))


def assemble_bpe(frame: Frame, model: Merges, multiple: int = 1) -> Assembled:
    """A byte-level tokenizer: special tokens first, then letters and merges, then reserved tokens up to `multiple`."""
    vocab = {token: index for index, token in enumerate(dict.fromkeys((*frame.markers, *model.tokens)))}
    added = [{"id": vocab[token["content"]], **token} for token in frame.added]
    state = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": vocab, "merges": [list(merge) for merge in model.merges],
    }  # fmt: skip
    return finish(frame, state, vocab, added, byte_level(frame.final), multiple)


def finish(
    frame: Frame,
    model: State,
    vocab: dict[str, int],
    added: list[State],
    pre_tokenizer: State | None,
    multiple: int,
) -> Assembled:
    """The whole state; `vocab` and `added` grow by reserved tokens until their number is a multiple."""
    while len(vocab) % multiple:
        content = f"<|reserved_{len(vocab)}|>"
        added.append({"id": len(vocab), **added_token(content)})
        vocab[content] = len(vocab)
    state = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": frame.normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": renumbered(frame.post_processor, vocab), "decoder": frame.decoder, "model": model,
    }  # fmt: skip
    return Assembled(state, frame.roles, frame.chat_template, frame.model_max_length, notes=frame.notes)


def renumbered(post_processor: State | None, ids: Mapping[str, int]) -> State | None:
    """A post-processor with the ids of another vocabulary; TokenAdaptError where one of its tokens is not in it."""

    def lookup(token: str) -> int:
        if token not in ids:
            raise TokenAdaptError(
                f"The post-processor adds {token!r}, which is no special token.", "Add it: --special."
            )
        return ids[token]

    def walk(part: Any) -> Any:  # JSON
        if isinstance(part, list):
            return [walk(item) for item in part]
        if not isinstance(part, dict):
            return part
        made = {key: walk(value) for key, value in part.items()}
        if part.get("type") == "TemplateProcessing":
            specials = part.get("special_tokens") or {}
            made["special_tokens"] = {
                name: {**token, "ids": [lookup(text) for text in token["tokens"]]} for name, token in specials.items()
            }
        elif part.get("type") in ("BertProcessing", "RobertaProcessing"):
            for key in ("sep", "cls"):
                made[key] = [part[key][0], lookup(part[key][0])]
        return made

    result: State | None = walk(post_processor)
    return result
