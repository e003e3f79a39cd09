"""From counts to a tokenizer, one function a family; `FAMILIES` is the list."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenadapt.errors import RequestError
from tokenadapt.progress import Progress
from tokenadapt.training.assemble import Assembled, assemble_bpe, finish
from tokenadapt.training.bpe import ALPHABET, train_words
from tokenadapt.training.counts import Counts, Cut
from tokenadapt.training.engine import run_job
from tokenadapt.training.frame import Frame, byte_level
from tokenadapt.training.options import TrainingOptions
from tokenadapt.training.presets import State
from tokenadapt.training.spm import SentencePieceJob
from tokenadapt.training.stochastic import Chunks, read_lengths
from tokenadapt.training.supertokens import TwoStage, reachable, train_two_stage
from tokenadapt.training.worker import Job
from tokenadapt.vocab.letters import to_letters
from tokenadapt.vocab.spm import merges_from_scores, read_sentencepiece

NEVER: Final = -1e6  # a score that no text can choose: for pieces that stand for no text
_LONGEST: Final = 256  # letters of a word that SentencePiece is given
_NORMAL, _BYTE = 1, 6  # SentencePiece's types of pieces
# literal <0x0A> must be spelled letter by letter, so these letters are always in a vocabulary with byte fallback
_FALLBACK_LETTERS: Final = "<0123456789ABCDEFx>"


@dataclass(frozen=True)
class Order:
    """What a family is asked to make: `size` tokens besides the frame's special ones."""

    options: TrainingOptions
    frame: Frame
    counts: Counts
    size: int
    progress: Progress


def train_bpe(order: Order) -> Assembled:
    """Byte-level BPE, ordinary or with supertokens."""
    options, frame = order.options, order.frame
    words = Cut("word", frame.words, None, frame.markers)
    rules = TwoStage(options.transition, options.max_words, options.min_frequency)
    if options.supertokens == "two-stage":
        model, _ = train_two_stage(order.counts, words, order.size, rules, order.progress)
    else:
        counts = order.counts
        if options.supertokens == "stochastic":
            lengths = read_lengths(options.lengths, options.length_unit)
            counts = Chunks(words, lengths, options.length_unit, options.seed).counts(counts)
        elif counts.cut.kind == "stretch":
            counts = counts.words(words)
        model = train_words(counts, order.size, min_frequency=options.min_frequency, progress=order.progress)
    model = reachable(model.without(lambda token: token in frame.markers))
    return assemble_bpe(frame, model, options.pad_vocab_to_multiple)


def train_unigram(order: Order) -> Assembled:
    """Byte-level Unigram: lossless, since every byte is a piece."""
    settings = {
        "model_type": "unigram", "character_coverage": 1.0, "required_chars": "".join(ALPHABET), "bos_id": -1,
        "eos_id": -1, "unk_id": 0, "split_by_whitespace": False,
    }  # fmt: skip
    words = [(to_letters(piece.encode()), count) for piece, count in order.counts.ordered()]
    pieces = _sentencepiece(order, words, order.size + 1, settings)["pieces"]
    scores = {piece: score for piece, score, kind in pieces if kind == _NORMAL and piece not in order.frame.markers}
    least = min(scores.values(), default=0.0)
    scores |= {letter: least - 1 for letter in ALPHABET if letter not in scores}  # bytes that the corpus lacks
    return _unigram(order, scores, None, byte_level(order.frame.final))


def train_characters(order: Order) -> Assembled:
    """BPE or Unigram over characters in the frame of an existing tokenizer (Llama 2, Gemma, T5, XLM-R)."""
    frame = order.frame
    fallback = bool(frame.model.get("byte_fallback"))
    settings = {
        "model_type": frame.kind.removeprefix("char-"), "byte_fallback": fallback, "bos_id": -1, "eos_id": -1,
        "unk_id": 0, "required_chars": _FALLBACK_LETTERS if fallback else "",
    }  # fmt: skip
    pieces = _sentencepiece(order, order.counts.ordered(), order.size + 1, settings)["pieces"]
    markers = set(frame.markers)
    scores = {piece: score for piece, score, kind in pieces if kind == _NORMAL and piece not in markers}
    bytes_first = {piece: NEVER for piece, _, kind in pieces if kind == _BYTE}
    if frame.kind == "char-unigram":
        return _unigram(order, {**bytes_first, **scores}, _unknown(frame), frame.final)
    vocab = {token: index for index, token in enumerate([*frame.markers, *bytes_first, *scores])}
    state = {**frame.model, "vocab": vocab, "merges": [list(merge) for merge in merges_from_scores(scores)]}
    return finish(frame, state, vocab, _added(frame, vocab), frame.final, order.options.pad_vocab_to_multiple)


def train_wordpiece(order: Order) -> Assembled:
    """WordPiece, whose letters are given in order: left alone, the stock trainer numbers them by a random hash."""
    frame = order.frame
    prefix = str(frame.model.get("continuing_subword_prefix") or "##")
    unknown = str(frame.model.get("unk_token") or frame.roles["unk_token"])
    items = [(piece, count) for piece, count in order.counts.ordered() if not any(map(str.isspace, piece))]
    letters = sorted({letter for piece, _ in items for letter in piece})
    inner = sorted({letter for piece, _ in items for letter in piece[1:]})
    special = [unknown, *letters, *(prefix + letter for letter in inner)]
    job = Job(
        "wordpiece", [piece for piece, _ in items], [count for _, count in items], order.size + 1, [], special,
        order.options.min_frequency,
    )  # fmt: skip
    trained = run_job(job, progress=order.progress)["vocab"]
    tokens = [token for token in sorted(trained, key=trained.__getitem__) if token not in frame.markers]
    vocab = {token: index for index, token in enumerate([*frame.markers, *tokens])}
    state = {
        "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": prefix,
        "max_input_chars_per_word": frame.model.get("max_input_chars_per_word", 100), "vocab": vocab,
    }  # fmt: skip
    return finish(frame, state, vocab, _added(frame, vocab), frame.final, order.options.pad_vocab_to_multiple)


def train_sp(order: Order) -> Assembled:
    """SentencePiece's own families: its `.model` file, and the tokenizer.json that gives the same ids."""
    frame, options = order.frame, order.options
    names = {role.removesuffix("_token"): content for role, content in frame.roles.items()}
    settings: dict[str, Any] = {
        "model_type": frame.kind.removeprefix("sp-"), "byte_fallback": True, "required_chars": _FALLBACK_LETTERS,
        "control_symbols": [content for content in frame.markers if content not in names.values()],
    }  # fmt: skip
    for index, role in enumerate(("unk", "bos", "eos", "pad")):
        settings |= {f"{role}_id": index, f"{role}_piece": names[role]}
    trained = _sentencepiece(order, order.counts.ordered(), order.size + len(frame.added), settings)
    data = base64.b64decode(trained["model"])
    with tempfile.TemporaryDirectory(prefix="tokenadapt-sp-") as scratch:
        path = Path(scratch) / "tokenizer.model"
        path.write_bytes(data)
        read = read_sentencepiece(path)
    assert read is not None
    state: State = json.loads(read.backend.to_str())
    if frame.kind == "sp-unigram":
        silent = {piece for piece, _, kind in trained["pieces"] if kind != _NORMAL}
        state["model"]["vocab"] = [
            [token, NEVER if token in silent else score] for token, score in state["model"]["vocab"]
        ]
    note = "Text is given back as it was, but for a literal U+2581, which becomes a blank."
    if len(trained["pieces"]) % options.pad_vocab_to_multiple:
        note += " The corpus gives too few pieces for the multiple asked for."
    return Assembled(state, frame.roles, model_file=data, notes=(*frame.notes, note))


def _sentencepiece(
    order: Order, items: list[tuple[str, int]], size: int, settings: Mapping[str, Any]
) -> dict[str, Any]:
    parts = [
        (word[at : at + _LONGEST], count)  # its suffix arrays take time that grows faster than a word's length
        for word, count in items
        if word.strip()
        for at in range(0, len(word), _LONGEST)
    ]
    if not parts:
        raise RequestError("The corpus holds nothing but white space.", "Name a corpus with text.")
    job = SentencePieceJob([word for word, _ in parts], [count for _, count in parts], size, settings)
    return run_job(job, name="SentencePiece", progress=order.progress)


def _unigram(order: Order, scores: Mapping[str, float], unknown: str | None, final: State | None) -> Assembled:
    frame = order.frame
    rows = [[token, NEVER] for token in frame.markers] + [[token, score] for token, score in scores.items()]
    vocab = {str(token): index for index, (token, _) in enumerate(rows)}
    added = _added(frame, vocab)
    state = {
        "type": "Unigram", "unk_id": vocab[unknown] if unknown else None, "vocab": rows,
        "byte_fallback": bool(frame.model.get("byte_fallback")),
    }  # fmt: skip
    before = len(vocab)
    made = finish(frame, state, vocab, added, final, order.options.pad_vocab_to_multiple)
    rows.extend([token, NEVER] for token, index in vocab.items() if index >= before)
    return made


def _unknown(frame: Frame) -> str | None:
    unknown = frame.roles.get("unk_token")
    if unknown is None and not frame.model.get("byte_fallback"):
        raise RequestError("The tokenizer has no unknown token and no byte fallback.", "Name one with --unk.")
    return unknown


def _added(frame: Frame, vocab: Mapping[str, int]) -> list[State]:
    return [{"id": vocab[token["content"]], **token} for token in frame.added]


FAMILIES: Final[Mapping[str, Callable[[Order], Assembled]]] = {
    "bpe": train_bpe,
    "unigram": train_unigram,
    "wordpiece": train_wordpiece,
    "char-bpe": train_characters,
    "char-unigram": train_characters,
    "sp-bpe": train_sp,
    "sp-unigram": train_sp,
}
