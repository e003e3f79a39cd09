"""Requests that cannot work: one sentence each, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys

import pytest
import torch

from tests.calibration.test_run import options
from tokenadapt.calibration import lesson as lesson_module
from tokenadapt.calibration.options import CalibrationOptions
from tokenadapt.calibration.run import calibrate
from tokenadapt.calibration.state import Desk
from tokenadapt.errors import MissingExtraError, RequestError, TokenAdaptError


@pytest.fixture
def copy(tied_swap, tmp_path):
    """Copies of both folders that a test may spoil."""
    for name, folder in zip(("source", "swapped"), tied_swap, strict=True):
        shutil.copytree(folder, tmp_path / name)
    return tmp_path / "source", tmp_path / "swapped"


def test_no_manifest_and_no_source(copy, corpus, tmp_path):
    (copy[1] / "transplant.json").unlink()
    with pytest.raises(RequestError, match=r"--source MODEL"):
        calibrate(options(copy, corpus, tmp_path / "out"))


def test_a_source_that_moved(copy, corpus, tmp_path):
    copy[0].rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=r"'source'.*--source FOLDER"):
        calibrate(options(copy, corpus, tmp_path / "out"))
    request = dataclasses.replace(options(copy, corpus, tmp_path / "out"), source=str(tmp_path / "elsewhere"))
    assert calibrate(request).curve


def test_a_source_whose_files_changed(copy, corpus, tmp_path):
    config = json.loads((copy[0] / "config.json").read_text())
    (copy[0] / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(RequestError, match=r"config\.json has changed"):
        calibrate(options(copy, corpus, tmp_path / "out"))


def test_a_source_whose_rows_changed(copy, corpus, tmp_path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy[0] / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"] * 1.5
    save_file(tensors, copy[0] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match="copied rows"):
        calibrate(options(copy, corpus, tmp_path / "out"))


def test_a_corpus_that_is_empty_or_short(tied_swap, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.txt").write_text("the quick brown fox")
    with pytest.raises(TokenAdaptError, match=r"a\.txt is empty"):
        calibrate(options(tied_swap, tmp_path / "empty", tmp_path / "out"))
    with pytest.raises(RequestError, match="--held-out"):
        calibrate(options(tied_swap, tmp_path / "short", tmp_path / "out"))
    held = dataclasses.replace(
        options(tied_swap, tmp_path / "short", tmp_path / "out"), held_out=(str(tmp_path / "short"),)
    )
    with pytest.raises(RequestError, match="only 1 stretches"):
        calibrate(held)


def test_a_corpus_without_new_tokens_says_which_share_is_covered(tied_swap, tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.txt").write_text(" ".join(str(7 * number + step) for step in range(40)))
    with pytest.raises(RequestError, match=r"0 of [0-9]+ new tokens occur"):
        calibrate(options(tied_swap, folder, tmp_path / "out"))


def test_an_output_that_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(RequestError, match="exists already"):
        calibrate(CalibrationOptions("nowhere", str(tmp_path / "out")))


def test_memory_that_runs_out_names_the_budget_to_lower(tied_swap, corpus, tmp_path, monkeypatch):
    def full(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(lesson_module.Lesson, "view", full)
    with pytest.raises(TokenAdaptError, match="--batch-tokens"):
        calibrate(options(tied_swap, corpus, tmp_path / "out"))


def test_a_run_goes_on_only_with_the_same_options(tied_swap, corpus, tmp_path):
    request = options(tied_swap, corpus, tmp_path / "out", steps=1)
    with pytest.raises(RequestError, match="no unfinished run"):
        calibrate(dataclasses.replace(request, resume=True))
    Desk.of(tmp_path / "out").begin(request.binding(), {"dtype": "float32", "data": "other texts"})
    with pytest.raises(RequestError, match="--resume"):
        calibrate(request)
    with pytest.raises(RequestError, match=r"lr 0\.05.*0\.5"):
        calibrate(dataclasses.replace(request, resume=True, lr=0.5))
    with pytest.raises(RequestError, match="data are not those"):
        calibrate(dataclasses.replace(request, resume=True))
    assert calibrate(dataclasses.replace(request, restart=True)).curve[-1].step == 1


def test_two_runs_for_one_output_are_refused(tied_swap, corpus, tmp_path):
    desk = Desk.of(tmp_path / "out")
    with desk.held(), pytest.raises(RequestError, match="Another process"):
        calibrate(options(tied_swap, corpus, tmp_path / "out"))
    assert not desk.folder.exists()  # nothing was begun


def test_an_extra_that_is_not_installed_is_named(tied_swap, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"tokenadapt\[lora\]"):
        calibrate(options(tied_swap, corpus, tmp_path / "out", train="lora"))
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"tokenadapt\[calibrate\]"):
        calibrate(options(tied_swap, corpus, tmp_path / "out"))


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"tokens": 0}, {"train": "all"}, {"lr": 0.0}, {"context": 2}, {"warmup": 1.0}, {"temperature": 0.0},
     {"resume": True, "restart": True}, {"objective": "love=1"}, {"minutes": -1.0}, {"bos": "maybe"}],
)  # fmt: skip
def test_values_that_no_run_can_have(wrong):
    with pytest.raises(RequestError):
        CalibrationOptions("folder", "out", **wrong)
