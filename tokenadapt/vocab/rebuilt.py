"""Where transformers runs another tokenizer than the files of a folder describe."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokenizers import Tokenizer

from tokenadapt.vocab.components import Part, same_tokens
from tokenadapt.vocab.spm import read_sentencepiece

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

log = logging.getLogger(__name__)

_PROBES: Final = ("the old end", " x", "   two  x ", "x\n\n\ty")


def differences(path: Path, fast: PreTrainedTokenizerFast) -> tuple[str, ...]:
    """A line where the class that transformers chose reads text otherwise than the folder's own file describes.

    Some classes (GPT2Tokenizer, Qwen2Tokenizer, LlamaTokenizer) bring their own pre-tokeniser and normaliser.
    """
    file = path / "tokenizer.json"
    if file.is_file():
        changed = _rebuilt(file, fast)
        same = not changed
        what = f"transformers runs another {' and '.join(changed).replace('_', '-')} than {file} describes"
    else:
        file = path / "tokenizer.model"
        same = not file.is_file() or _as_sentencepiece(file, fast)
        what = f"transformers cuts some text otherwise than {file} does"
    if same:
        return ()
    note = f"{what} (class {type(fast).__name__}); name the file itself to take what it describes."
    log.warning(note)
    return (note,)


def _rebuilt(file: Path, fast: PreTrainedTokenizerFast) -> list[Part]:
    state = json.loads(file.read_text(encoding="utf-8"))
    state["model"], state["added_tokens"] = {"type": "BPE", "vocab": {}, "merges": []}, []
    written = Tokenizer.from_str(json.dumps({**state, "post_processor": None}))
    parts: tuple[Part, ...] = ("normalizer", "pre_tokenizer")
    return [part for part in parts if not same_tokens(written, fast.backend_tokenizer, part)]


def _as_sentencepiece(file: Path, fast: PreTrainedTokenizerFast) -> bool:
    written = read_sentencepiece(file)
    running = fast.backend_tokenizer
    return written is None or all(
        written.backend.encode(text, add_special_tokens=False).ids == running.encode(text, add_special_tokens=False).ids
        for text in _PROBES
    )
