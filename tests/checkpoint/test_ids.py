"""Stale ids are planted everywhere; none may survive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, GenerationConfig, LlamaConfig

from tokenadapt.checkpoint.ids import end_ids, respeller, stale_ids, translate_config
from tokenadapt.vocab.types import ByteVocab

# old id -> new id; 2 is the old eos, 32 ends the old turn, 77 has no counterpart
TRANSLATE = {0: 900, 1: 901, 2: 902, 3: 903, 5: 905, 6: 906, 7: 907, 32: 932}
ROLES = {"bos": 901, "eos": 902, "pad": 903, "unk": 900}


def run(config, generation=None, *, translate=TRANSLATE, roles=ROLES, **more):
    return translate_config(config, generation, translate, roles, rows=1000, tied=True, **more)


def llama(**more):
    return {"model_type": "llama", "vocab_size": 100, "bos_token_id": 1, "eos_token_id": 2, **more}


def test_roles_take_the_targets_own_ids_and_sizes_the_new_height():
    made = run(llama(pad_token_id=2, tie_word_embeddings=True)).config
    assert (made["bos_token_id"], made["eos_token_id"], made["pad_token_id"], made["vocab_size"]) == (
        901,
        902,
        903,
        1000,
    )


def test_a_role_that_the_target_lacks_is_translated_by_meaning_else_null_with_a_warning():
    made = run(llama(unk_token_id=77, sep_token_id=5), roles={"eos": 902})
    assert made.config["bos_token_id"] == 901  # through the alignment
    assert made.config["sep_token_id"] == 905
    assert made.config["unk_token_id"] is None
    assert [change.key for change in made.changes if change.warning] == ["unk_token_id"]


def test_keys_left_to_the_classes_default_are_written_out():
    """A Llama configuration without eos stops at 2, whatever that is now."""
    made = run({"model_type": "llama", "vocab_size": 100}, roles={"eos": 902}).config
    assert made["eos_token_id"] == 902
    assert made["bos_token_id"] is None
    assert LlamaConfig(**made).bos_token_id is None


def test_eos_keeps_every_meaning_the_targets_own_first():
    made = run(llama(eos_token_id=[2, 32, 77]), {"eos_token_id": [32, 2]}, chat_end=950)
    assert made.config["eos_token_id"] == [902, 932, 950]
    assert made.generation_config["eos_token_id"] == [902, 932, 950]
    assert end_ids(made.config) == (902, 932, 950)


def test_pad_equal_to_eos_stays_equal_where_the_target_has_no_pad():
    made = run(llama(pad_token_id=2), {"pad_token_id": 2, "eos_token_id": 2}, roles={"eos": 990})
    assert made.config["pad_token_id"] == made.config["eos_token_id"][0] == 990
    assert made.generation_config["pad_token_id"] == 990


def test_minus_one_means_none():
    made = run(llama(pad_token_id=-1), roles={"eos": 902})
    assert made.config["pad_token_id"] is None
    assert not made.warnings


def test_nested_text_configuration_and_multimodal_markers():
    config = {
        "model_type": "llava", "image_token_index": 77, "video_token_id": 5,
        "text_config": llama(pad_token_id=0), "vision_config": {"model_type": "clip_vision_model", "image_size": 224},
    }  # fmt: skip
    made = run(config)
    assert made.config["text_config"]["vocab_size"] == 1000
    assert made.config["text_config"]["eos_token_id"] == 902
    assert made.config["text_config"]["pad_token_id"] == 903
    assert made.config["video_token_id"] == 905
    assert made.config["image_token_index"] == -1  # transformers 5 wants a number here
    assert "vocab_size" not in made.config
    assert made.config["vision_config"] == config["vision_config"]
    assert any("image_token_index" in line for line in made.warnings)


@pytest.mark.parametrize(
    ("kind", "key", "written"),
    [
        ("gemma3", "image_token_index", -1),
        ("gemma3", "boi_token_index", -1),
        ("qwen2_vl", "image_token_id", -1),
        ("bart", "decoder_start_token_id", None),
        ("bart", "forced_eos_token_id", None),
        ("llama", "image_token_id", None),
        ("no-such-model", "image_token_id", None),
    ],
)
def test_what_says_that_there_is_no_such_token(kind, key, written):
    """Gemma 3 compares its image marker with numbers: null would fail at the first step."""
    made = run({"model_type": kind, key: 77})
    assert made.config[key] == written
    assert any(key in line for line in made.warnings)


def test_every_list_of_the_generation_configuration():
    made = run(
        llama(),
        {
            "suppress_tokens": [5, 77, 6],
            "begin_suppress_tokens": [77],
            "forced_bos_token_id": 7,
            "forced_eos_token_id": 77,
            "forced_decoder_ids": [[1, 5], [2, 77]],
            "bad_words_ids": [[5, 6], [5, 77]],
            "force_words_ids": [[[5], [6, 7]]],
            "sequence_bias": [[[5, 6], -2.0], [[77], 1.0]],
            "lang_to_id": {"de": 5, "xx": 77},
            "decoder_start_token_id": 2,
            "max_new_tokens": 5,
            "temperature": 0.5,
        },
    ).generation_config
    assert made == {
        "suppress_tokens": [905, 906],
        "forced_bos_token_id": 907,
        "forced_decoder_ids": [[1, 905]],
        "bad_words_ids": [[905, 906]],
        "force_words_ids": [[[905], [906, 907]]],
        "sequence_bias": [[[905, 906], -2.0]],
        "lang_to_id": {"de": 905},
        "decoder_start_token_id": 902,
        "max_new_tokens": 5,
        "temperature": 0.5,
        "eos_token_id": 902,
    }
    GenerationConfig.from_dict(made)


def test_sequence_bias_with_tuples_written_as_keys():
    made = run(llama(), {"sequence_bias": {"(5, 6)": -1.5}}).generation_config
    assert made["sequence_bias"] == [[[905, 906], -1.5]]


def test_a_decoder_start_that_was_the_pad_follows_it():
    made = run({"model_type": "t5", "vocab_size": 100, "pad_token_id": 40, "decoder_start_token_id": 40})
    assert made.config["decoder_start_token_id"] == made.config["pad_token_id"] == 903


def test_a_model_without_an_end_is_warned_of():
    made = run({"model_type": "bert", "vocab_size": 9}, roles={}, translate={})
    assert any("no token ends a text" in line for line in made.warnings)


STALE = """mask_token_id cls_token_id unk_token_id image_token_id eod_id im_end_id no_such_token_id user_token_id
eos_index forced_bos_token_id"""


def test_no_stale_id_survives_anywhere_in_a_file_full_of_them():
    planted = dict.fromkeys(STALE.split(), 77)
    made = run(llama(**planted, suppress_tokens=[77], tokenizer_class="LlamaTokenizer", text_config=dict(planted)))
    flat = str({key: value for key, value in made.config.items() if key != "eos_token_id"})
    assert "77" not in flat
    assert "tokenizer_class" not in made.config
    AutoConfig.for_model("llama", **{k: v for k, v in made.config.items() if k not in ("model_type", "text_config")})


def test_numbers_that_are_no_ids_stay():
    config = llama(num_image_tokens=77, max_new_tokens=77, hidden_size=77, id2label={"0": "x"}, label2id={"x": 0})
    made = run(config).config
    assert {key: made[key] for key in config if key in ("num_image_tokens", "hidden_size", "id2label", "label2id")} == {
        key: config[key] for key in ("num_image_tokens", "hidden_size", "id2label", "label2id")
    }


@pytest.mark.parametrize(
    ("config", "tied", "written"),
    [
        ({"model_type": "llama", "tie_word_embeddings": False}, True, True),
        ({"model_type": "llama"}, False, None),  # Llama's default says so already
        ({"model_type": "llama"}, True, True),
        ({"model_type": "gpt2"}, False, False),
        ({"model_type": "gpt2"}, None, None),
        ({"model_type": "t5", "is_encoder_decoder": True, "tie_word_embeddings": False}, True, False),
        ({"model_type": "llama", "tie_word_embeddings": True}, None, True),
    ],
)
def test_the_tie_is_stated_as_the_file_has_it(config, tied, written):
    made = translate_config(config, None, TRANSLATE, ROLES, rows=1000, tied=tied)
    assert made.config.get("tie_word_embeddings") is written


def test_a_nested_tie_is_stated_in_both_places():
    config = {"model_type": "llava", "text_config": llama(tie_word_embeddings=True), "tie_word_embeddings": True}
    made = run(config).config
    assert made["tie_word_embeddings"] is made["text_config"]["tie_word_embeddings"] is True
    made = translate_config(config, None, TRANSLATE, ROLES, rows=1000, tied=False).config
    assert made["tie_word_embeddings"] is made["text_config"]["tie_word_embeddings"] is False


def test_ids_beyond_the_table_are_not_written():
    made = run(llama(), roles={"eos": 5000, "bos": 901})
    assert made.config["eos_token_id"] == 902  # the old meaning; the tokenizer's own id has no row


def test_stale_ids_are_found_in_written_files():
    assert list(stale_ids({"vocab_size": 10, "eos_token_id": [3, 12]}, 10)) == [
        "config.json eos_token_id names [12], the table has 10 rows"
    ]
    assert list(stale_ids({"text_config": {"vocab_size": 9}}, 10)) == [
        "config.json vocab_size is 9, the table has 10 rows in text_config"
    ]


OLD = st.integers(0, 99)
VALUES = st.one_of(OLD, st.none(), st.lists(OLD, max_size=4), st.just(-1))
KEYS = st.sampled_from((*STALE.split(), "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"))
CONFIGS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=6),
    lambda inner: st.fixed_dictionaries({}, optional={"text_config": inner, "decoder": inner, "eos_token_id": VALUES}),
    max_leaves=3,
)


@settings(max_examples=60, deadline=None)
@given(
    config=CONFIGS,
    generation=st.dictionaries(KEYS, VALUES),
    known=st.sets(OLD),
    roles=st.sets(st.sampled_from(list(ROLES))),
)
def test_every_id_that_is_left_is_a_new_one(config, generation, known, roles):
    """Old ids are below 100, new ones from 900: what comes out is new, or nothing."""
    made = translate_config(
        {"model_type": "llama", **config}, generation, {old: 900 + old for old in known},
        {role: ROLES[role] for role in roles}, rows=1000,
    )  # fmt: skip

    def ids(block):
        for key, value in block.items():
            if isinstance(value, dict):
                yield from ids(value)
            elif key not in ("vocab_size", "model_type"):
                yield from value if isinstance(value, list) else [value]

    left = [*ids(made.config), *ids(made.generation_config)]
    assert all(token in (None, -1) or 900 <= token < 1000 for token in left)
    assert made.config["vocab_size"] == 1000


def bytes_vocab(tokens):
    """Tokens by id; None is a special. Spelling is greedy by length."""
    index = {token: i for i, token in enumerate(tokens) if token}

    def spell(text):
        ids = []
        while text:
            match = max((t for t in index if text.startswith(t)), key=len, default=None)
            if match is None:
                return None
            ids.append(index[match])
            text = text[len(match) :]
        return ids

    import numpy as np

    return ByteVocab(
        tuple(tokens), np.zeros(len(tokens), np.uint8), tuple(str(t) for t in tokens), {},
        encode=lambda texts: [spell(text.encode()) for text in texts], spell=lambda parts: [spell(p) for p in parts],
    )  # fmt: skip


def test_words_that_are_spelled_are_spelled_anew():
    """Old "ba"+"d" is one token of the target: ids one by one would name a spelling that never comes."""
    source = bytes_vocab([b"ba", b"d", None, b"q"])
    target = bytes_vocab([None, b"bad", b"ba", b"d"])
    respell = respeller(source, target, {0: 2, 1: 3, 2: 0})
    assert respell([0, 1]) == [1]
    assert respell([2, 0, 1]) == [0, 1]
    assert respell([3]) is None
    made = run(llama(), {"bad_words_ids": [[0, 1], [3]]}, respell=respell)
    assert made.generation_config["bad_words_ids"] == [[1]]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "bert", "t5", "gpt2", "gemma3"])
def test_what_is_written_loads_with_transformers(kind):
    nested = {"text_config": {"model_type": "gemma3_text"}} if kind == "gemma3" else {}
    made = run({"model_type": kind, **nested}).config
    loaded = AutoConfig.for_model(kind, **{key: value for key, value in made.items() if key != "model_type"})
    assert loaded.get_text_config().vocab_size == 1000
    assert loaded.get_text_config().eos_token_id == 902
