"""Any tokenizer a user can name, as one fast tokenizer: folder, Hub id, `tokenizer.json`, SentencePiece or tiktoken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer

from tokenadapt.errors import RequestError
from tokenadapt.locate import locate
from tokenadapt.vocab.rebuilt import differences
from tokenadapt.vocab.spm import read_sentencepiece
from tokenadapt.vocab.tiktoken import read_tiktoken

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_ROLES: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_VOCABULARIES: Final = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json")
_SETTINGS: Final = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
_HINT: Final = "Name a folder, a Hub id, a tokenizer.json or a SentencePiece .model file."


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer as its users get it, and where it came from. `notes` are lines that a user should read."""

    spec: str
    path: Path
    fast: PreTrainedTokenizerFast
    notes: tuple[str, ...] = ()

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer that runs, whatever the files say."""
        backend: Tokenizer = self.fast.backend_tokenizer
        return backend

    @property
    def files(self) -> Mapping[str, Path]:
        """The tokenizer's files by name, as far as they exist: those of the folder, or the one file that was named."""
        if self.path.is_file():
            return {self.path.name: self.path}
        names = (*_VOCABULARIES, "tokenizer.model", *_SETTINGS)
        return {name: self.path / name for name in names if (self.path / name).is_file()}


def load_tokenizer(spec: str, *, revision: str | None = None, trust_remote_code: bool = False) -> LoadedTokenizer:
    """Load the tokenizer that `spec` names: a folder, a Hub id, a `tokenizer.json`, a `.model` or `.tiktoken` file.

    A folder is read by AutoTokenizer, and what that gives is the truth, since it is what users run: some tokenizer
    classes rebuild the pre-tokeniser and ignore the file's (a note says so). A file that is named itself is taken as it
    is. No network for local paths; no code from a repository unless `trust_remote_code`. Raises RequestError.
    """
    path = locate(spec, "tokenizer", revision=revision)
    try:
        loaded = _from_file(spec, path) if path.is_file() else _from_folder(spec, path, trust_remote_code)
    except OSError as error:
        raise RequestError(f"The tokenizer at {spec} cannot be read: {error.strerror or error}.", _HINT) from error
    loaded.backend.no_truncation()  # some files carry the settings of a past call
    loaded.backend.no_padding()
    return loaded


def _from_file(spec: str, path: Path) -> LoadedTokenizer:
    from transformers import PreTrainedTokenizerFast

    if path.suffix == ".json":
        return LoadedTokenizer(spec, path, _from_json(path))
    sentencepiece = read_sentencepiece(path)
    if sentencepiece is not None:
        fast = PreTrainedTokenizerFast(tokenizer_object=sentencepiece.backend, **sentencepiece.special)
        return LoadedTokenizer(spec, path, fast)
    backend = read_tiktoken(path)
    if backend is None:
        raise RequestError(f"{spec} is neither a tokenizer.json nor a SentencePiece or tiktoken file.", _HINT)
    note = f"{path.name} does not say how text is cut before the merges: the pattern of cl100k and Llama 3 is used."
    return LoadedTokenizer(spec, path, PreTrainedTokenizerFast(tokenizer_object=backend), (note,))


def _from_json(path: Path) -> PreTrainedTokenizerFast:
    """The file alone. Its roles (bos, eos, ...) are those that its own components name."""
    from transformers import PreTrainedTokenizerFast

    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(state, dict) and isinstance(state.get("model"), dict)):
            raise RequestError(f"{path} is no tokenizer.json: it describes no tokenizer model.", _HINT)
        backend = Tokenizer.from_file(str(path))
    except RequestError:
        raise
    except Exception as error:  # the Rust side raises bare Exception
        raise RequestError(f"The tokenizer file {path} is damaged: {_first_line(error)}", _HINT) from error
    return PreTrainedTokenizerFast(tokenizer_object=backend, **_conventional_roles(backend, state))


def _conventional_roles(backend: Tokenizer, state: dict[str, Any]) -> dict[str, str]:
    """Roles by the unk of the model and by the names that everyone uses, among special tokens only."""
    special = {token["content"] for token in state.get("added_tokens", ()) if token.get("special")}
    named = {
        "bos_token": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>"),
        "eos_token": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"),
        "pad_token": ("<pad>", "[PAD]", "<|pad|>"),
        "unk_token": (str(state["model"].get("unk_token")), "<unk>", "[UNK]"),
        "sep_token": ("[SEP]",),
        "cls_token": ("[CLS]",),
        "mask_token": ("<mask>", "[MASK]"),
    }
    found = {role: next((name for name in names if name in special), None) for role, names in named.items()}
    return {role: name for role, name in found.items() if name is not None}


def _from_folder(spec: str, path: Path, trust_remote_code: bool) -> LoadedTokenizer:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    saved = any((path / name).is_file() for name in _VOCABULARIES)
    bare = sorted([*path.glob("*.model"), *path.glob("*.tiktoken")])
    if not saved and not bare:  # transformers would make an empty tokenizer of a configuration
        raise RequestError(f"The folder {spec} holds no vocabulary of a tokenizer.", _HINT)
    configured = any((path / name).is_file() for name in ("tokenizer_config.json", "config.json"))
    if not saved and not configured:
        named = path / "tokenizer.model"
        return _from_file(spec, named if named in bare else bare[0])
    try:
        fast = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises whatever its classes raise
        raise _unreadable(spec, path, error) from error
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise RequestError(
            f"The tokenizer of {spec} ({type(fast).__name__}) has no fast form, so its tokens cannot be read as bytes.",
            "Choose a tokenizer with a tokenizer.json.",
        )
    fast.init_kwargs.pop("local_files_only", None)  # else it is saved with the tokenizer
    return LoadedTokenizer(spec, path, fast, differences(path, fast))


def _unreadable(spec: str, path: Path, error: Exception) -> RequestError:
    if "trust_remote_code" in str(error):
        remedy = f"or name {path / 'tokenizer.json'} " if (path / "tokenizer.json").is_file() else ""
        return RequestError(
            f"The tokenizer of {spec} wants to run code from its own folder.",
            f"Read that code and pass --trust-remote-code if you trust it, {remedy}or choose another tokenizer.",
        )
    for file in path.glob("*.model"):
        if read_sentencepiece(file) is None and read_tiktoken(file) is None:
            return RequestError(f"{file} is damaged: it is neither a SentencePiece nor a tiktoken file.", _HINT)
    return RequestError(f"The tokenizer of {spec} cannot be loaded: {_first_line(error)}", _HINT)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".") + "."
