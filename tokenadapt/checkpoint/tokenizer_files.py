"""The tokenizer of the result as files that every reader takes by their content.

The class is always `PreTrainedTokenizerFast`: with a class of a family (GPT2Tokenizer, Qwen2Tokenizer) transformers 5
rebuilds the pre-tokeniser and ignores the file's. `tokenizer.json` is what the running tokenizer does, not what was on
disk, and `tokenizer_config.json` is written from nothing, with keys that transformers 4 and 5 read alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from tokenadapt.errors import RequestError, VerificationError
from tokenadapt.vocab.load import LoadedTokenizer

FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model")
STALE: Final = (
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "chat_template.json", "tiktoken.model",
)  # fmt: skip
_ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_KEPT: Final = ("padding_side", "truncation_side")
_UNBOUNDED: Final = 10**12  # transformers writes 1e30 where nobody gave a length
TEMPLATES: Final = "additional_chat_templates"
CODE: Final = "tokenization_from_file.py"
_PLAIN_CLASS: Final = '''\
"""Reads tokenizer.json as it is; used only where remote code is trusted, not needed otherwise."""

from transformers import PreTrainedTokenizerFast


class FileTokenizer(PreTrainedTokenizerFast):
    """The tokenizer that tokenizer.json describes."""
'''
SAMPLES: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces, a\ttab,\n\nlines\r\n and 12345.678 numbers",
    "Die Straße führt über den Fluß; naïve été, 你好世界, नमस्ते, العربية, 👩‍👩‍👧 👍🏽",
    "def add(a, b):\n    return a + b  # sum\n",
    "In the middle of the night the old man of the sea went to the end of the road.",
)


def write_tokenizer(
    target: LoadedTokenizer,
    staging: Path,
    *,
    positions: int | None = None,
    chat_template: str | Mapping[str, str] | None = None,
    token_types: bool = False,
) -> None:
    """Write the target tokenizer into `staging` and check that AutoTokenizer reads it back id for id.

    `config.json` must lie in `staging` already: which class AutoTokenizer takes depends on its model type.
    `positions` becomes `model_max_length`; `token_types` says that the model reads `token_type_ids`. Files of another
    tokenizer that lie in `staging` are removed. Raises VerificationError where what is read back differs.
    """
    for name in (*STALE, *FILES, CODE):
        (staging / name).unlink(missing_ok=True)
    state = json.loads(target.backend.to_str())
    state["truncation"] = state["padding"] = None  # a habit of the model that it came from
    _write(staging / "tokenizer.json", json.dumps(state, ensure_ascii=False))
    settings = tokenizer_config(target, positions=positions, token_types=token_types)
    _write(staging / "tokenizer_config.json", json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
    _write_templates(staging, chat_template)
    own = target.files.get("tokenizer.model")
    if own is not None and _unchanged(target, own):
        shutil.copyfile(own, staging / "tokenizer.model")
    plain = target.backend.truncation is None and target.backend.padding is None
    truth = target.backend if plain else Tokenizer.from_file(str(staging / "tokenizer.json"))
    differing = reads_back_otherwise(staging, truth)
    if differing:
        _insist_on_the_file(staging, settings)
        differing = reads_back_otherwise(staging, truth)
    if differing:
        raise VerificationError(
            f"AutoTokenizer does not read the written tokenizer as it is: {differing}",
            "Name the tokenizer's tokenizer.json itself, or report this tokenizer.",
        )


def _insist_on_the_file(staging: Path, settings: dict[str, Any]) -> None:
    """For model types whose own class transformers 5 puts above every other (qwen2, qwen3_5): an `auto_map`.

    Where one is named, transformers 5.23 (`AutoTokenizer.from_pretrained`, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS)
    takes the class that the file says, and version 4 does so too; neither runs the code, unless a user asks for
    remote code, and then these few lines read the file as well.
    """
    _write(staging / CODE, _PLAIN_CLASS)
    settings["auto_map"] = {"AutoTokenizer": [None, f"{Path(CODE).stem}.FileTokenizer"]}
    _write(staging / "tokenizer_config.json", json.dumps(settings, ensure_ascii=False, indent=2) + "\n")


def tokenizer_config(target: LoadedTokenizer, *, positions: int | None, token_types: bool) -> dict[str, Any]:
    """`tokenizer_config.json`: the class, the roles by name, and nothing that could rebuild the tokenizer.

    Special tokens without a role are not listed: `tokenizer.json` marks them, and the list has another name and form
    in transformers 4 than in 5.
    """
    fast = target.fast
    made: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    known = {token.content for token in target.backend.get_added_tokens_decoder().values()}
    for role in _ROLES:
        text = getattr(fast, role, None)
        if text is not None and (str(text) in known or target.backend.token_to_id(str(text)) is not None):
            made[role] = str(text)
    longest = positions or fast.model_max_length  # the tokenizer's own is a habit of the model that it came from
    if longest and longest < _UNBOUNDED:
        made["model_max_length"] = int(longest)
    made["clean_up_tokenization_spaces"] = False  # it eats spaces that the text had
    made["model_input_names"] = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    for key in _KEPT:
        if (side := getattr(fast, key, None)) not in (None, "right"):
            made[key] = side
    return made


def reads_back_otherwise(folder: Path, truth: Tokenizer | None = None, texts: Sequence[str] = SAMPLES) -> str:
    """A sentence on where AutoTokenizer and `tokenizer.json` differ in a folder; empty where they agree.

    `truth` is what the file holds, where the caller has it in memory.
    """
    from transformers import AutoTokenizer

    truth = truth or Tokenizer.from_file(str(folder / "tokenizer.json"))
    try:
        read = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever its classes raise
        return f"it cannot be loaded ({type(error).__name__}: {error})"
    if read.get_vocab() != truth.get_vocab(with_added_tokens=True):
        return "its vocabulary differs from tokenizer.json"
    for part in ("normalizer", "pre_tokenizer"):
        if _state(getattr(read.backend_tokenizer, part)) != _state(getattr(truth, part)):
            return f"{type(read).__name__} runs another {part.replace('_', '-')}"
    specials = [token.content for token in truth.get_added_tokens_decoder().values()][:64]
    for text in (*texts, " ".join(specials), "a".join(specials)):
        for special in (False, True):
            ours = truth.encode(text, add_special_tokens=special).ids
            theirs = read(text, add_special_tokens=special)["input_ids"]
            if list(theirs) != ours:
                return f"{text[:40]!r} is {len(theirs)} tokens instead of {len(ours)}, or other ones"
    return ""


def _state(component: Any) -> Any:
    return component.__getstate__() if component is not None else None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_templates(staging: Path, template: str | Mapping[str, str] | None) -> None:
    shutil.rmtree(staging / TEMPLATES, ignore_errors=True)
    if not template:
        return
    named = {"default": template} if isinstance(template, str) else dict(template)
    for name, text in named.items():
        if name == "default":
            _write(staging / "chat_template.jinja", text)
        else:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise RequestError(f"The chat template name {name!r} is no file name.", "Rename it in the tokenizer.")
            (staging / TEMPLATES).mkdir(exist_ok=True)
            _write(staging / TEMPLATES / f"{name}.jinja", text)


def _unchanged(target: LoadedTokenizer, model: Path) -> bool:
    """Whether the SentencePiece file still is this tokenizer: same ids, nothing carried in since."""
    from tokenadapt.vocab.spm import read_sentencepiece

    read = read_sentencepiece(model)
    if read is None:
        return False
    theirs: dict[str, int] = read.backend.get_vocab(with_added_tokens=True)
    ours: dict[str, int] = target.backend.get_vocab(with_added_tokens=True)
    return theirs == ours
