"""Where a model or a tokenizer is: a local path, the embedded `pocket`, or a snapshot of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, Literal

from tokenadapt.errors import RequestError, TokenAdaptError

Wanted = Literal["model", "tokenizer"]

POCKET: Final = Path(__file__).parent / "pocket"
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_TOKENIZER_FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_MODEL_FILES: Final = (*_TOKENIZER_FILES, "*.safetensors", "*.safetensors.index.json")


def is_hub_id(spec: str) -> bool:
    """Whether a name could be a Hub id, and is no path that exists."""
    return bool(_HUB_ID.fullmatch(spec)) and not Path(spec).exists()


def locate(spec: str, wanted: Wanted, *, revision: str | None = None) -> Path:
    """The local folder (or tokenizer file) that `spec` means; downloads a Hub id, touches no network for a path.

    A file named `pocket` in the working directory does not hide the embedded model: write ./pocket for a folder.
    """
    if spec == "pocket":
        return POCKET
    path = Path(spec).expanduser()
    if path.exists():
        if path.is_dir() and not any(path.iterdir()):
            raise RequestError(f"The {wanted} folder {spec} is empty.", "Name a folder that holds its files.")
        return path
    if spec.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(spec):
        raise RequestError(
            f"There is no {wanted} at {spec}.",
            "Check the path; a Hub id looks like owner/name, the small built-in model is `pocket`.",
        )
    return _download(spec, wanted, revision)


def _download(spec: str, wanted: Wanted, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = list(_MODEL_FILES if wanted == "model" else _TOKENIZER_FILES)
    try:
        return Path(snapshot_download(spec, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise RequestError(
            f"The Hub repository {spec} is gated.", "Accept its terms on the Hub, then log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise RequestError(
            f"There is no local path {spec}, and no Hub repository or revision of that name that you may read.",
            "Check the spelling, or log in with `hf auth login` if it is private.",
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise TokenAdaptError(
            f"There is no local path {spec}, and the Hugging Face Hub cannot be reached ({type(error).__name__}).",
            "Offline, name a local folder, or download it first on a machine with network: hf download " + spec,
        ) from error
