"""A plan on disk is the plan, and nothing but a plan is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.tiny import tiny_tokenizer
from tokenadapt.checkpoint.saved_plan import FILE, load_plan, save_plan, vocabulary_hash
from tokenadapt.errors import RequestError
from tokenadapt.plan import Dense, Plan
from tokenadapt.vocab import byte_vocab
from tokenadapt.vocab.load import LoadedTokenizer
from tokenadapt.vocab.types import Alignment, How

ALIGNMENT = Alignment(
    np.array([3, -1, -1, 0, -1]),
    np.array([How.COPIED, How.MISSING, How.UNUSED, How.SPECIAL, How.MISSING], np.uint8),
    {2: "special token <|x|> has no counterpart"},
    spelled_alike=1,
)
PLAN = Plan(np.array([0, 2, 3]), np.array([1, 2, 2]), np.array([0.25, 0.75, 1.0], np.float32))
SCALED = Plan(
    PLAN.start, PLAN.source_id, PLAN.weight,
    scale=np.ones(2, np.float32), shift=np.zeros(4, np.float32), bias=np.ones(2, np.float32),
    direction=np.ones(4, np.float32),
)  # fmt: skip


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("v")
    made = [LoadedTokenizer("t", folder, tiny_tokenizer("bytelevel-bpe", size)) for size in (380, 400)]
    return [byte_vocab(one) for one in made]


@pytest.fixture
def saved(tmp_path, vocabularies):
    source, target = vocabularies
    save_plan(
        tmp_path / FILE, ALIGNMENT, {"input": SCALED, "output": PLAN}, source=source, target=target,
        methods={"input": "pieces", "output": "length"}, calibration="calibrate-norm", options={"fallback": "mean"},
    )  # fmt: skip
    return tmp_path


def test_ids_and_weights_come_back_and_numbers_of_the_model_are_not_in_it(saved, vocabularies):
    plan = load_plan(saved)
    assert np.array_equal(plan.alignment.how, ALIGNMENT.how)
    assert np.array_equal(plan.alignment.source_id, ALIGNMENT.source_id)
    assert (plan.alignment.notes, plan.alignment.spelled_alike) == (ALIGNMENT.notes, 1)
    for made in plan.plans().values():
        assert np.array_equal(made.start, PLAN.start)
        assert np.array_equal(made.source_id, PLAN.source_id)
        assert np.array_equal(made.weight, PLAN.weight)
        assert made.scale is made.shift is made.bias is None
    assert plan.methods == {"input": "pieces", "output": "length"}
    assert (plan.calibration, plan.options) == ("calibrate-norm", {"fallback": "mean"})
    assert [plan.source_hash, plan.target_hash] == [vocabulary_hash(one) for one in vocabularies]


def test_no_engine_loads_it_as_weights(saved):
    assert not list(saved.glob("*.safetensors"))


def test_saving_twice_gives_the_same_bytes(saved, tmp_path, vocabularies):
    first = (saved / FILE).read_bytes()
    source, target = vocabularies
    save_plan(
        saved / "again.plan", ALIGNMENT, {"input": SCALED, "output": PLAN}, source=source, target=target,
        methods={"input": "pieces", "output": "length"}, calibration="calibrate-norm", options={"fallback": "mean"},
    )  # fmt: skip
    assert (saved / "again.plan").read_bytes() == first


def test_dense_rows_are_recorded_and_refused_with_a_sentence(tmp_path, vocabularies):
    source, target = vocabularies
    rows = Dense(torch.zeros(2, 4))
    save_plan(tmp_path / FILE, ALIGNMENT, {"output": rows}, source=source, target=target, methods={"output": "normal"})
    plan = load_plan(tmp_path)
    assert plan.made == {"output": "dense"}
    with pytest.raises(RequestError, match="made by normal"):
        plan.plans()


def test_hashes_tell_vocabularies_apart(vocabularies):
    from dataclasses import replace

    one, other = vocabularies
    assert vocabulary_hash(one) == vocabulary_hash(one) != vocabulary_hash(other)
    swapped = list(one.token_bytes)
    swapped[100], swapped[101] = swapped[101], swapped[100]
    assert vocabulary_hash(replace(one, token_bytes=tuple(swapped))) != vocabulary_hash(one)


def damage(folder, **change):
    path = folder / FILE
    with safe_open(path, "np") as opened:
        about = opened.metadata()
    tensors = load_file(path) | change
    save_file({name: value for name, value in tensors.items() if value is not None}, path, about)


@pytest.mark.parametrize(
    "change",
    [
        {"input.start": np.array([0, 3])},  # too few runs
        {"input.start": np.array([0, 9, 3])},
        {"input.source_id": np.array([1, -5, 2])},
        {"input.weight": np.array([0.5, np.nan, 1], np.float32)},
        {"input.weight": np.array([0.5], np.float32)},
        {"input.weight": None},
        {"alignment.how": np.array([0, 0, 0, 0, 0], np.uint8)},
        {"alignment.source_id": None},
    ],
)
def test_plans_that_contradict_themselves(saved, change):
    damage(saved, **change)
    with pytest.raises(RequestError, match="contradicts itself"):
        load_plan(saved)


def test_what_is_no_plan(saved, tmp_path):
    with pytest.raises(RequestError, match="no saved plan"):
        load_plan(tmp_path / "nowhere")
    (tmp_path / "text.plan").write_text("hello")
    with pytest.raises(RequestError, match="cannot be read"):
        load_plan(tmp_path / "text.plan")
    whole = (saved / FILE).read_bytes()
    (tmp_path / "short.plan").write_bytes(whole[:-5])
    with pytest.raises(RequestError, match="cannot be read"):
        load_plan(tmp_path / "short.plan")
    save_file({"a": np.zeros(2)}, tmp_path / "other.plan")
    with pytest.raises(RequestError, match="no plan of this program"):
        load_plan(tmp_path / "other.plan")
    save_file({"a": np.zeros(2)}, tmp_path / "new.plan", {"tokenadapt": '{"version": 9}'})
    with pytest.raises(RequestError, match="format 9"):
        load_plan(tmp_path / "new.plan")
