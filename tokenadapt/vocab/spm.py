"""SentencePiece model files, read from their own protocol buffer into a fast tokenizer that gives the same ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tokenadapt.errors import RequestError

SPACE: Final = "▁"
_UNIGRAM, _BPE = 1, 2  # trainer_spec.model_type
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # pieces[].type


@dataclass(frozen=True)
class SentencePieceModel:
    """A tokenizer read from a `.model` file, and the special tokens that the file itself names."""

    backend: Tokenizer
    special: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, unk_token, pad_token -> piece


def read_sentencepiece(path: Path) -> SentencePieceModel | None:
    """The tokenizer in a SentencePiece file; None where the file is something else.

    transformers, given such a file alone, leaves out the leading space that the file's normaliser asks for; here every
    setting of the file is followed. Raises RequestError for models that no fast tokenizer can express.
    """
    proto = _parse(path)
    if proto is None:
        return None
    kind = proto.trainer_spec.model_type
    if kind not in (_UNIGRAM, _BPE) or proto.trainer_spec.treat_whitespace_as_suffix:
        raise RequestError(
            f"The SentencePiece model {path} is neither BPE nor Unigram with spaces in front of words.",
            "Train or choose a BPE or Unigram model.",
        )
    backend = Tokenizer(_unigram(proto) if kind == _UNIGRAM else _bpe(proto))
    backend.normalizer = _normalizer(proto)
    backend.decoder = _decoder(proto)
    _add_symbols(backend, proto)
    special = {}
    for role in ("bos", "eos", "unk", "pad"):
        index = getattr(proto.trainer_spec, f"{role}_id")
        if 0 <= index < len(proto.pieces):
            special[f"{role}_token"] = proto.pieces[index].piece
    return SentencePieceModel(backend, special)


def _parse(path: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception:  # protobuf's DecodeError: not this format
        return None
    return proto if len(proto.pieces) else None


def _unigram(proto: Any) -> models.Unigram:
    """Pieces that text never yields (control, bytes) keep an id, at the worst score, so that they rarely match."""
    worst = min((piece.score for piece in proto.pieces if piece.type == _NORMAL), default=0.0)
    kept = (_NORMAL, _USER_DEFINED)
    vocab = [(piece.piece, piece.score if piece.type in kept else worst) for piece in proto.pieces]
    return models.Unigram(vocab, unk_id=_unk_id(proto), byte_fallback=proto.trainer_spec.byte_fallback)


def _bpe(proto: Any) -> models.BPE:
    ids = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL}
    return models.BPE(
        ids,
        list(merges_from_scores(scores)),
        unk_token=proto.pieces[_unk_id(proto)].piece,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
        ignore_merges=bool(_cut_symbols(proto)),
    )


def merges_from_scores(scores: dict[str, float]) -> Iterable[tuple[str, str]]:
    """Every pair of pieces that joins to a piece, best score of the joined piece first, as SentencePiece merges."""
    found = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                found.append((-score, -len(left), -len(right), left, right))
    found.sort()
    return ((left, right) for *_, left, right in found)


def _unk_id(proto: Any) -> int:
    return int(proto.trainer_spec.unk_id)


def _normalizer(proto: Any) -> normalizers.Normalizer | None:
    spec = proto.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        table = normalizers.Precompiled(spec.precompiled_charsmap)
        if table.normalize_str("\r") == table.normalize_str("\n"):
            # the table is looked up by grapheme, and \r\n is one: its second half would be lost
            steps.append(normalizers.Replace("\r\n", "\n\n"))
        steps.append(table)
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE if spec.escape_whitespaces else " "))
    if spec.escape_whitespaces:
        steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps) if steps else None


def _decoder(proto: Any) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if proto.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)


def _cut_symbols(proto: Any) -> list[str]:
    """User-defined symbols that must be cut out of normalised text, longest first.

    As added tokens they would be matched before the normaliser runs: spaces in them would never match, and each
    stretch after one would be given a leading space again.
    """
    symbols = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    needed = proto.normalizer_spec.add_dummy_prefix or any(SPACE in symbol for symbol in symbols)
    return sorted(symbols, key=len, reverse=True) if needed else []


def _add_symbols(backend: Tokenizer, proto: Any) -> None:
    if symbols := _cut_symbols(proto):
        pattern = Regex("|".join(re.escape(symbol) for symbol in symbols))
        backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    unk = _unk_id(proto)
    special = [piece.piece for index, piece in enumerate(proto.pieces) if piece.type == _CONTROL or index == unk]
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    if not symbols:
        own = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
        backend.add_tokens([AddedToken(text, normalized=False) for text in own])
