from __future__ import annotations

import json

import pytest
import torch

from tokenadapt.errors import RequestError
from tokenadapt.spaces.options import SpaceOptions, split_spec
from tokenadapt.spaces.pooling import Usage, pool, read_usage

STATES = torch.tensor([[[1.0, -4], [3, 0], [8, 1]], [[5, 5], [99, 99], [-99, 99]]])
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", [[4, -1], [5, 5]]),
        ("cls", [[1, -4], [5, 5]]),
        ("max", [[8, 1], [5, 5]]),
        ("last", [[8, 1], [5, 5]]),
        ("weighted", [[31 / 6, -1 / 6], [5, 5]]),
    ],
)
def test_poolings_worked_by_hand(pooling, expected):
    torch.testing.assert_close(pool(STATES, MASK, pooling), torch.tensor(expected, dtype=torch.float32))


def test_low_precision_states_are_summed_in_float32():
    states = torch.full((1, 3000, 1), 1.0, dtype=torch.bfloat16)
    assert pool(states, torch.ones(1, 3000, dtype=torch.int64), "mean").item() == 1.0


def encoder(folder, pooling=None, modules=("Transformer", "Pooling", "Normalize"), prompts=None, sentence=None):
    (folder / "1_Pooling").mkdir()
    listed = [
        {"type": f"sentence_transformers.models.{name}", "path": "1_Pooling" if name == "Pooling" else ""}
        for name in modules
    ]
    files = {
        "modules.json": listed,
        "1_Pooling/config.json": pooling,
        "config_sentence_transformers.json": prompts,
        "sentence_bert_config.json": sentence,
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def test_an_encoder_that_says_nothing_is_pooled_by_mean(tmp_path):
    assert read_usage(tmp_path, SpaceOptions()) == Usage()


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_encoders_own_pooling_and_the_users_over_it(tmp_path, said, pooling):
    folder = encoder(tmp_path, said)
    assert read_usage(folder, SpaceOptions()).pooling == pooling
    assert read_usage(folder, SpaceOptions(pooling="max")).pooling == "max"


def test_prompts_lengths_and_case(tmp_path):
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": "document"}
    pooling = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    folder = encoder(tmp_path, pooling, prompts=prompts, sentence={"max_seq_length": 128, "do_lower_case": True})
    assert read_usage(folder, SpaceOptions()) == Usage("mean", "passage: ", False, 128, True)
    assert read_usage(folder, SpaceOptions(prefix="query")).prefix == "query: "
    assert read_usage(folder, SpaceOptions(prefix="search: ")).prefix == "search: "
    assert read_usage(folder, SpaceOptions(prefix="")).prefix == ""


def test_pipelines_that_cannot_be_followed_are_refused(tmp_path):
    folder = encoder(tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})
    with pytest.raises(RequestError, match="cls and mean"):
        read_usage(folder, SpaceOptions())
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(RequestError, match="Dense") as caught:
        read_usage(folder, SpaceOptions())
    assert "st:" in caught.value.hint
    (folder / "modules.json").write_text("{")
    with pytest.raises(RequestError, match="no JSON"):
        read_usage(folder, SpaceOptions())


def test_options_ride_on_the_name_of_a_space():
    start = SpaceOptions(device="cpu")
    assert split_spec("self:states=0.25", start) == ("self:states=0.25", start)
    assert split_spec("static:C:\\words.vec", start) == ("static:C:\\words.vec", start)
    spec = "hf:intfloat/e5:prefix=query: a, b,pooling=cls,batch_tokens=64"
    expected = SpaceOptions(prefix="query: a, b", pooling="cls", batch_tokens=64, device="cpu")
    assert split_spec(spec, start) == ("hf:intfloat/e5", expected)
    for wrong, word in (
        ("hf:e5:pooling=best", "pooling 'best'"),
        ("hf:e5:batch_tokens=many", "batch_tokens=many"),
        ("hf:e5:batch_tokens=-1", "-1 tokens"),
        ("hf:e5:precision=int4", "precision 'int4'"),
        ("self:backend=gpu", "backend 'gpu'"),
    ):
        with pytest.raises(RequestError, match=word):
            split_spec(wrong, start)
