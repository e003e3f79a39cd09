"""The folder that training leaves: loads by content with AutoTokenizer, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenadapt.atomic import staged_folder
from tokenadapt.training.assemble import Assembled

MANIFEST = "tokenizer_training.json"


def write_tokenizer(made: Assembled, destination: Path, record: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write tokenizer.json, tokenizer_config.json, chat_template.jinja, tokenizer.model and the manifest.

    The class is always PreTrainedTokenizerFast: any other rebuilds the pre-tokeniser and ignores the file's.
    """
    tokenizer = made.tokenizer().to_str(pretty=True).encode()
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if made.model_max_length is not None:
        config["model_max_length"] = made.model_max_length
    config.update(made.roles)
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": _json(config)}
    if made.chat_template is not None:
        files["chat_template.jinja"] = made.chat_template.encode()
    if made.model_file is not None:
        files["tokenizer.model"] = made.model_file
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[MANIFEST] = _json({**record, "files": hashes})
    with staged_folder(destination, overwrite=overwrite) as staging:
        for name, data in files.items():
            with (staging / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
