"""Which keys of `config.json` and `generation_config.json` name token ids, and which state the vocabulary's size.

Read from the configurations of transformers 4.57 and 5 (`transformers/models/*/configuration_*.py`,
`generation/configuration_utils.py`) and of remote-code models of the same years.
"""

from __future__ import annotations

import copy
import re
from enum import Enum
from functools import lru_cache
from typing import Any, Final

ROLES: Final = {
    **{f"{role}_token_id": role for role in ("bos", "eos", "pad", "unk", "mask", "sep", "cls")},
    **{f"{role}_index": role for role in ("bos", "eos", "pad", "unk", "mask")},  # XLM, Flaubert
    **{f"{role}_id": role for role in ("bos", "eos", "pad", "unk", "mask")},
}
NO_ID: Final = -1  # no token has it
SIZES: Final = ("vocab_size", "padded_vocab_size", "n_vocab", "decoder_vocab_size")
TEXT: Final = ("text_config", "language_config", "llm_config", "thinker_config", "decoder", "encoder", "generator")

_ONE: Final = re.compile(r"(^|_)token_(id|ids|index|indices|indexes)$|^(eod|eot|im_start|im_end|stop)_ids?$")
_PLAIN_LISTS: Final = ("suppress_tokens", "begin_suppress_tokens", "forced_tokens", "stop_tokens")
_GENERATION: Final = ("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id")
_SEQUENCES: Final = ("bad_words_ids", "force_words_ids", "stop_sequences_ids")
_TIE: Final = "tie_word_embeddings"
_LABELS: Final = ("label2id", "id2label", "label_to_id")
_OTHER: Final = re.compile(r"vision|image|video|audio|speech|codec|codebook|vq|talker|quanti|depth|rope|lora")


class Names(Enum):
    """How the value of a key names tokens."""

    NOTHING = "nothing"
    ROLE = "role"  # one of bos, eos, pad, unk, mask, sep, cls
    IDS = "ids"  # an id, or a list of ids that mean something each
    SEQUENCES = "sequences"  # lists of ids that spell text together
    BIAS = "bias"  # sequences with a number each
    STEPS = "steps"  # [position, id] pairs
    BY_NAME = "by name"  # {name: id}
    BLOCK = "block"  # a nested configuration of the same text model


def names(key: str, value: Any) -> Names:
    """What the value under `key` names."""
    if isinstance(value, dict) and key not in _LABELS and not key.endswith("_to_id") and key != "sequence_bias":
        return Names.NOTHING if _OTHER.search(key) else Names.BLOCK
    if key in ROLES:
        return Names.ROLE
    if key in _SEQUENCES:
        return Names.SEQUENCES
    if key == "sequence_bias":
        return Names.BIAS
    if key == "forced_decoder_ids":
        return Names.STEPS
    if key.endswith("_to_id") and key not in _LABELS and isinstance(value, dict):
        return Names.BY_NAME
    return Names.IDS if _ONE.search(key) or key in _PLAIN_LISTS else Names.NOTHING


@lru_cache(maxsize=16)
def _class_defaults(model_type: str) -> dict[str, Any]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        made: dict[str, Any] = CONFIG_MAPPING[model_type]().to_dict()
    except Exception:  # an unknown type or one that cannot be built bare: then only what is written counts
        return {}
    return {key: value for key, value in made.items() if key in (*SIZES, _TIE) or _names_ids(key, value)}


def _names_ids(key: str, value: Any) -> bool:
    return value is not None and names(key, value) not in (Names.NOTHING, Names.BLOCK)


def defaults(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers fills in for id and size keys that `config` leaves out: a key left out is not gone.

    Llama without `eos_token_id` stops at id 2, whatever token that is now.
    """
    model_type = config.get("model_type")
    made = copy.deepcopy(_class_defaults(model_type)) if isinstance(model_type, str) else {}
    made.pop(_TIE, None)
    return made


def tie_default(config: dict[str, Any]) -> bool:
    """Whether transformers ties the tables of this configuration's type where it does not say; its own default: yes."""
    model_type = config.get("model_type")
    return bool(_class_defaults(model_type).get(_TIE, True)) if isinstance(model_type, str) else True


def nothing(config: dict[str, Any], key: str) -> int | None:
    """What says "no token" under `key`: null, or -1 where the class, or its code, takes numbers only.

    transformers 5 checks the types of some keys, and compares markers of images and the like without asking whether
    there is one; no id is -1, so that such a marker is never found. What only generation reads may be null.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        kind = CONFIG_MAPPING[config["model_type"]]
    except KeyError:
        return None
    if key not in _GENERATION and isinstance(defaults(config).get(key), int):
        return NO_ID
    try:
        kind(**{key: None})
    except Exception:
        return NO_ID
    return None
