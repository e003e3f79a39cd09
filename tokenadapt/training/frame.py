"""A tokenizer without its model: what surrounds the vocabulary that is to be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from tokenadapt.errors import RequestError
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import State, digit_pattern, stretch_state, word_state

END_OF_TEXT: Final = "<|endoftext|>"
PADDING: Final = "<|padding|>"
ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token", "sep_token", "cls_token")
BYTE_LETTERS: Final[State] = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False,
}  # fmt: skip
BYTE_DECODER: Final[State] = {**BYTE_LETTERS, "add_prefix_space": True, "use_regex": True}  # flags mean nothing here


@dataclass(frozen=True)
class Frame:
    """Components as tokenizer.json writes them, special tokens without ids, and what tokenizer_config.json holds.

    `words` cuts text for ordinary merges, `final` is what the finished tokenizer cuts with: the same, or stretches.
    """

    kind: str  # bpe, unigram, wordpiece, char-bpe, char-unigram, sp-bpe, sp-unigram
    words: State | None
    final: State | None
    normalizer: State | None = None
    decoder: State | None = None
    post_processor: State | None = None
    added: tuple[State, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None
    model_max_length: int | None = None
    notes: tuple[str, ...] = ()
    model: State = field(default_factory=dict)  # settings of the model, without its vocabulary

    @property
    def markers(self) -> tuple[str, ...]:
        """The spellings of all added tokens, in order."""
        return tuple(token["content"] for token in self.added)


def added_token(content: str) -> State:
    """A special token that is matched exactly as it is."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"content": content, **flags}


def with_specials(frame: Frame, options: TrainingOptions) -> Frame:
    """The frame with the special tokens and roles that the options name."""
    roles = dict(frame.roles)
    for role in ("bos", "eos", "pad", "unk"):
        if (content := getattr(options, role)) is not None:
            roles[f"{role}_token"] = content
    have = set(frame.markers)
    new = [content for content in (*roles.values(), *options.special) if content not in have]
    added = (*frame.added, *(added_token(content) for content in dict.fromkeys(new)))
    return replace(frame, added=added, roles=roles)


def byte_level_frame(options: TrainingOptions, kind: str = "bpe") -> Frame:
    """The frame of a byte-level tokenizer from a preset: lossless for every string."""
    roles = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PADDING}
    words = word_state(options.pre_tokenizer)
    return with_specials(Frame(kind, words, words, decoder=BYTE_DECODER, roles=roles), options)


def wordpiece_frame(options: TrainingOptions) -> Frame:
    """BERT's frame, cased: cleans control characters, cuts at punctuation, gives single blanks back."""
    roles = {
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    roles["unk_token"] = options.unk or "[UNK]"
    token = {name: {"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]")}
    text, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    template = {
        "type": "TemplateProcessing",
        "single": [token["[CLS]"], text, token["[SEP]"]],
        "pair": [token["[CLS]"], text, token["[SEP]"], second, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {name: {"id": name, "ids": [], "tokens": [name]} for name in token},
    }
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": False,
        "lowercase": False,
    }  # fmt: skip
    words = {"type": "BertPreTokenizer"}
    decoder = {"type": "WordPiece", "prefix": "##", "cleanup": False}
    note = (
        "WordPiece gives words back, not text: runs of blanks, line breaks and control characters are lost, and "
        "characters that the corpus lacks become the unknown token."
    )
    frame = Frame("wordpiece", words, words, normalizer, decoder, template, roles=roles, notes=(note,))
    return with_specials(frame, options)


def sentencepiece_frame(options: TrainingOptions) -> Frame:
    """Only what is counted and which special tokens there are: the rest is in the model file that training gives."""
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "pad": "<pad>"}
    roles = {f"{role}_token": getattr(options, role) or name for role, name in names.items()}
    if len(set(roles.values())) < len(roles):
        raise RequestError(
            "SentencePiece needs four different tokens for unk, bos, eos and pad.", "Rename one of them."
        )
    words = word_state(options.pre_tokenizer)
    return with_specials(Frame(str(options.type), words, None, roles=roles), options)


def stretched(frame: Frame) -> Frame:
    """The frame whose final pre-tokeniser cuts stretches, with digits grouped as the words were."""
    return replace(frame, final=stretch_state(digit_pattern(frame.words)))


def byte_level(state: State | None) -> State:
    """A text-level pre-tokeniser followed by the change to byte letters."""
    parts: Sequence[State] = (
        state["pretokenizers"] if state and state["type"] == "Sequence" else [state] if state else []
    )
    return {"type": "Sequence", "pretokenizers": [*parts, BYTE_LETTERS]} if parts else BYTE_LETTERS
