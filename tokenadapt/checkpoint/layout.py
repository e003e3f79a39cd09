"""What a model's code says about its vocabulary: which parameters have a row per token, and which are one and the same.

The model is built from its config on the meta device (shapes without numbers), a second time with a larger vocabulary;
what changes shape depends on the vocabulary. No list of model families is kept.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tokenadapt.errors import RequestError

Kind = Literal["causal", "masked", "seq2seq"]
_STEP = 64  # rows by which the second model is larger
_AUTO = {
    "causal": ("MODEL_FOR_CAUSAL_LM", "MODEL_FOR_IMAGE_TEXT_TO_TEXT", "MODEL_FOR_MULTIMODAL_LM"),
    "masked": ("MODEL_FOR_MASKED_LM",),
    "seq2seq": ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM",),
}
_REMOTE = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}


@dataclass(frozen=True)
class Layout:
    """The vocabulary as the model's code has it; names are the code's, which a file may spell otherwise."""

    kind: Kind
    architecture: str
    rows: int  # V, as the config says
    width: int  # D
    tied: bool  # whether the code makes one table of input and output
    input: str
    output: str
    input_names: frozenset[str]  # every name of the input table, the output's among them where the code ties
    output_names: frozenset[str]
    biases: frozenset[str]  # parameters and buffers with one number per token
    strange: tuple[str, ...]  # depend on the vocabulary, and are none of these
    known: frozenset[str]  # every name of the model
    positions: int | None  # longest text the model takes
    renamed: Callable[[str], str]  # name in a file -> name in the code


def read_layout(folder: Path, *, trust_remote_code: bool = False) -> Layout:
    """Build the model of `folder` without its numbers and look; RequestError where no new vocabulary fits in."""
    config = _load_config(folder, trust_remote_code)
    kind, build = _builder(folder, config, trust_remote_code)
    text = config.get_text_config()
    if kind == "seq2seq" and text is not config:
        raise RequestError(
            f"The encoder and the decoder of {folder} are two models with vocabularies of their own.",
            "Only encoder-decoder models with one shared vocabulary can be transplanted.",
        )
    try:
        return _look(folder, kind, _on_meta(build, config), _on_meta(build, _with_more_tokens(config)))
    except RequestError:
        raise
    except Exception as error:  # a model's code may raise anything over a config that it does not like
        raise RequestError(
            f"The model of {folder} cannot be built from its config.json ({_short(error)}).",
            "Try to load it with transformers; a newer version may be needed.",
        ) from error


def _load_config(folder: Path, trust_remote_code: bool) -> Any:
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # as may its config's
        if "trust_remote_code" in str(error):
            raise RequestError(
                f"The model of {folder} needs Python code that comes with it.",
                "Read that code, then allow it to run with --trust-remote-code.",
            ) from error
        raise RequestError(
            f"transformers {transformers.__version__} does not understand {folder}/config.json ({_short(error)}).",
            "Check the file's model_type, or install a newer transformers.",
        ) from error


def _builder(folder: Path, config: Any, trust_remote_code: bool) -> tuple[Kind, Callable[[Any], Any]]:
    """What kind of language model it is, and the class that makes one from a config."""
    import transformers
    from transformers.models.auto import modeling_auto

    architecture = (getattr(config, "architectures", None) or [""])[0]
    kinds: tuple[Kind, ...] = ("seq2seq",) if config.is_encoder_decoder else ("causal", "masked")
    remote = getattr(config, "auto_map", None) or {}
    for kind in kinds:
        if trust_remote_code and _REMOTE[kind] in remote:
            return kind, partial(getattr(transformers, _REMOTE[kind]).from_config, trust_remote_code=True)
        known = {name for table in _AUTO[kind] for name in _names(modeling_auto, table, None)}
        default = [name for table in _AUTO[kind] for name in _names(modeling_auto, table, config.model_type)]
        chosen = architecture or (default[0] if default else "")
        if chosen in known and hasattr(transformers, chosen):
            return kind, getattr(transformers, chosen)
    raise RequestError(
        f"The model of {folder} ({architecture or config.model_type}) is no language model with a head over tokens.",
        "Causal, masked and encoder-decoder language models that transformers knows can be transplanted.",
    )


def _names(auto: Any, table: str, model_type: str | None) -> list[str]:
    """Class names in one of transformers' tables: all, or those of one model type."""
    mapping = getattr(auto, f"{table}_MAPPING_NAMES", {})
    values = mapping.values() if model_type is None else [mapping[model_type]] if model_type in mapping else []
    return [name for value in values for name in ((value,) if isinstance(value, str) else value)]


def _with_more_tokens(config: Any) -> Any:
    """The same config with more tokens, under every key that counts tokens (`vocab_size_per_layer_input`, ...)."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    for key, value in vars(text).items():
        if "vocab_size" in key and "type" not in key and isinstance(value, int):
            setattr(text, key, value + _STEP)
    return config


def _on_meta(build: Callable[[Any], Any], config: Any) -> Any:
    import torch

    with torch.device("meta"):
        return build(config)


def _look(folder: Path, kind: Kind, model: Any, wider: Any) -> Layout:
    state, wide = model.state_dict(keep_vars=True), wider.state_dict(keep_vars=True)
    vocabulary = {name: value for name, value in state.items() if name in wide and value.shape != wide[name].shape}
    source = _weight_of(model, model.get_input_embeddings(), state)
    output = _weight_of(model, model.get_output_embeddings(), state)
    if source not in vocabulary or output not in vocabulary or state[source].shape != state[output].shape:
        raise RequestError(
            f"The model of {folder} has no table of token embeddings and head over the same tokens, of one shape.",
            "Causal, masked and encoder-decoder language models with one vocabulary can be transplanted.",
        )
    rows = int(state[source].shape[0])
    inputs = frozenset(name for name, value in vocabulary.items() if value is state[source])
    outputs = frozenset(name for name, value in vocabulary.items() if value is state[output])
    biases = frozenset(name for name, value in vocabulary.items() if value.numel() == rows)
    strange = tuple(name for name in vocabulary if name not in inputs | outputs | biases)
    return Layout(
        kind=kind,
        architecture=type(model).__name__,
        rows=rows,
        width=int(state[source].shape[1]),
        tied=output in inputs,
        input=source,
        output=output,
        input_names=inputs,
        output_names=outputs,
        biases=biases,
        strange=strange,
        known=frozenset(state),
        positions=_positions(model.config),
        renamed=_renamer(model, state),
    )


def _weight_of(model: Any, module: Any, state: dict[str, Any]) -> str:
    """The name of a module's weight; "" where there is none."""
    names = (name for name in state if name.endswith(".weight"))
    return next((name for name in names if model.get_submodule(name.removesuffix(".weight")) is module), "")


def _positions(config: Any) -> int | None:
    text = config.get_text_config()
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length"):
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            # RoBERTa's position ids begin after the padding id: two rows of its table are no positions.
            return value - 2 if re.search("roberta|camembert", text.model_type) else value
    return None


def _renamer(model: Any, state: dict[str, Any]) -> Callable[[str], str]:
    """How the library's loader spells a file's tensor name; a name that it cannot place comes back unchanged."""
    prefix = model.base_model_prefix
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        steps = get_model_conversion_mapping(model)
        plain = [step for step in steps if isinstance(step, WeightRenaming)]
        merging = [step for step in steps if isinstance(step, WeightConverter)]
    except ImportError:  # transformers 4: a table of patterns on the class
        patterns = getattr(model, "_checkpoint_conversion_mapping", None) or {}

        def library(name: str) -> str:
            for pattern, replacement in patterns.items():
                name, hits = re.subn(pattern, replacement, name)
                if hits:
                    break
            return name
    else:

        def library(name: str) -> str:
            return str(rename_source_key(name, plain, merging, prefix, state)[0])

    def renamed(name: str) -> str:
        spelled = library(name)
        choices = (spelled, name, f"{prefix}.{spelled}", spelled.removeprefix(f"{prefix}."))
        return next((choice for choice in choices if choice in state), name)

    return renamed


def _short(error: BaseException) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
