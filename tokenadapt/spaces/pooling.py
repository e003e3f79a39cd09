"""From the states of a string's tokens to its vector, as the files of the encoder say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tokenadapt.errors import RequestError
from tokenadapt.spaces.options import SpaceOptions

MODULES: Final = ("Transformer", "Pooling", "Normalize")  # what is done here; anything else would change the vectors
SAID: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean",  # the same direction
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_weightedmean_tokens": "weighted",
}


@dataclass(frozen=True)
class Usage:
    """How an encoder wants to be used."""

    pooling: str = "mean"
    prefix: str = ""
    pool_prefix: bool = True  # False: the prefix's tokens are read but not pooled
    longest: int | None = None  # tokens a string is cut to
    lower: bool = False


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One float32 vector per string, (B, D), from states (B, T, D) padded on the right; mask (B, T) is 1 for tokens.

    `weighted` weighs token t by t, counted from one over the whole string (SGPT).
    """
    states, weight = states.float(), mask.float()
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        return states[torch.arange(len(states), device=mask.device), last]
    if pooling == "max":
        return states.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(dim=1)
    if pooling == "weighted":
        weight = weight * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (states * weight[:, :, None]).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp_min(1)


def read_usage(folder: Path, options: SpaceOptions) -> Usage:
    """What an encoder's folder says, with the user's options over it; masked mean where it says nothing.

    Raises RequestError for pipelines with modules beyond a pooling, and for poolings that are not known.
    """
    where = "1_Pooling"
    for module in _read(folder / "modules.json") or []:
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind not in MODULES:
            raise RequestError(
                f"The encoder {folder} ends in a module {kind}, which hf: does not run.",
                f"Use st:{folder}, which runs all modules of a sentence-transformers model.",
            )
        where = str(module.get("path", where)) if kind == "Pooling" else where
    pooling = _read(folder / where / "config.json") or {}
    sentence = _read(folder / "sentence_bert_config.json") or {}
    prompts = _read(folder / "config_sentence_transformers.json") or {}
    return Usage(
        pooling=_pooling(pooling, folder) if options.pooling == "auto" else options.pooling,
        prefix=_prefix(prompts, options.prefix),
        pool_prefix=bool(pooling.get("include_prompt", True)),
        longest=sentence.get("max_seq_length"),
        lower=bool(sentence.get("do_lower_case", False)),
    )


def _read(path: Path) -> Any:
    """A JSON file, or None where there is none."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RequestError(f"{path} is no JSON ({error}).", "Fetch the encoder again.") from error


def _pooling(config: Mapping[str, Any], folder: Path) -> str:
    modern = config.get("pooling_mode")
    if isinstance(modern, str):
        said = {"lasttoken": "last", "weightedmean": "weighted", "mean_sqrt_len_tokens": "mean"}.get(modern, modern)
        chosen = [said]
    else:
        chosen = sorted({name for flag, name in SAID.items() if config.get(flag)})
    if not chosen:
        return "mean"
    if len(chosen) > 1 or chosen[0] not in SAID.values():
        raise RequestError(
            f"The encoder {folder} pools by {' and '.join(chosen)}, which hf: does not do.",
            f"Name one pooling with the option pooling, or use st:{folder}.",
        )
    return chosen[0]


def _prefix(config: Mapping[str, Any], wanted: str | None) -> str:
    """The user's prefix, by name where the encoder has a prompt of that name; else its default prompt."""
    prompts = config.get("prompts") or {}
    if wanted is not None:
        return str(prompts.get(wanted, wanted))
    default = config.get("default_prompt_name")
    return str(prompts.get(default, "")) if default else ""
