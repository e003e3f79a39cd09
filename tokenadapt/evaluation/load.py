"""A checkpoint folder or Hub id to a model that can be scored, with its tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokenadapt.errors import MissingExtraError, RequestError, TokenAdaptError
from tokenadapt.evaluation.encode import TextEncoder
from tokenadapt.evaluation.options import EvalOptions
from tokenadapt.locate import locate

if TYPE_CHECKING:
    from torch import nn

PLAN = "transplant.plan"


@dataclass(frozen=True)
class Subject:
    """A model to be scored, as it was given and as it was loaded."""

    spec: str
    path: Path
    model: nn.Module
    encoder: TextEncoder
    dtype: str
    device: str
    how: NDArray[np.uint8] | None  # (V,) how each row was made, where the folder holds a plan


def load_subject(spec: str, options: EvalOptions, local_rank: int = 0) -> Subject:
    """Load a model and its tokenizer; RequestError where the request can never work."""
    from tokenadapt.vocab.load import load_tokenizer

    path = locate(spec, "model")
    if not (path / "config.json").is_file():
        raise RequestError(f"{spec} is no model folder: it has no config.json.", "Name a folder that holds a model.")
    loaded = load_tokenizer(str(path), trust_remote_code=options.trust_remote_code)
    encoder = TextEncoder.of(loaded)
    device = pick_device(options.device, local_rank)
    dtype = options.dtype if options.dtype != "auto" else "float32" if device.type == "cpu" else "auto"
    model = _load(spec, path, options, dtype)
    if options.device_map is None:
        model = model.to(device)
    kept = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Subject(spec, path, model, encoder, kept, str(device), row_origins(path))


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of this process: the accelerator of its number where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank % max(1, torch.cuda.device_count())}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(f"The device {name!r} cannot be used: {_first(error)}", "Use --device cpu.") from error
    return device


def row_origins(path: Path) -> NDArray[np.uint8] | None:
    """How each row of a transplanted checkpoint was made (`How` codes), or None for any other."""
    plan = path / PLAN
    if not plan.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(plan, framework="np") as tensors:
            return np.asarray(tensors.get_tensor("alignment.how"), dtype=np.uint8)
    except (SafetensorError, OSError) as error:
        raise TokenAdaptError(
            f"{plan} cannot be read: {_first(error)}", "Run the transplant again, or remove the file."
        ) from error


def _load(spec: str, path: Path, options: EvalOptions, dtype: str) -> Any:  # transformers is untyped
    import transformers

    if options.device_map is not None:
        try:
            import accelerate  # noqa: F401
        except ImportError:
            raise MissingExtraError("--device-map", "accelerate", "accelerate") from None
    masked = options.score.kind == "masked"
    kind = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    extra = {"device_map": options.device_map} if options.device_map else {}
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, KeyError, RuntimeError, json.JSONDecodeError) as error:
        what = "masked" if masked else "causal"
        raise TokenAdaptError(
            f"{spec} cannot be loaded as a {what} language model: {_first(error)}",
            "Weights must be safetensors; a masked model wants --masked; its own code wants --trust-remote-code.",
        ) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    if report.get("missing_keys"):
        names = sorted(report["missing_keys"])
        raise TokenAdaptError(
            f"{spec} lacks {len(names)} tensors of the model, {names[0]} the first: random values would be scored.",
            "Check that the folder is complete, and whether it is a causal or a masked model (--masked).",
        )
    return model


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
