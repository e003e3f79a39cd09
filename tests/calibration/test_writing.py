"""Texts of the source's own: seeded, ended where the model ends them, kept; and snippets that cover new tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.calibration.room import speakers
from tests.calibration.test_run import options
from tokenadapt.calibration import writing
from tokenadapt.calibration.bench import set_up
from tokenadapt.calibration.cover import Need, snippets, written
from tokenadapt.calibration.examples import Text
from tokenadapt.calibration.group import join
from tokenadapt.calibration.own_texts import own_texts
from tokenadapt.calibration.pair import open_pair
from tokenadapt.calibration.run import calibrate
from tokenadapt.calibration.writing import Manner, Writer
from tokenadapt.spaces.shelf import Shelf


def test_texts_follow_the_seed_and_the_models_probabilities():
    _, teacher, _, _ = speakers(dtype=torch.float32)
    writer, manner = Writer(teacher, [2]), Manner(400, 10, 1.0, 3)
    texts = writer.write([[1]], manner)
    assert texts == writer.write([[1]], manner)
    assert texts != writer.write([[1]], dataclasses.replace(manner, seed=4))
    assert all(text[0] == 1 and 2 not in text[1:] and len(text) <= 10 for text in texts)
    assert sum(len(text) - 1 for text in texts) >= 400
    cold = writer.write([[1]], dataclasses.replace(manner, temperature=1e-4))
    greedy = [1]
    while len(greedy) < 10 and greedy[-1] != 2:
        greedy.append(int(teacher(torch.tensor([greedy])).logits[0, -1].argmax()))
    assert cold[0] == [token for token in greedy if token != 2]


def test_first_tokens_are_drawn_as_often_as_the_model_says():
    _, teacher, _, _ = speakers(dtype=torch.float32)
    with torch.no_grad():
        wanted = teacher(torch.tensor([[1]])).logits[0, -1].softmax(-1)
    drawn = torch.tensor([text[1] for text in Writer(teacher, []).write([[1]], Manner(3000, 2, 1.0, 0))])
    found = torch.bincount(drawn, minlength=len(wanted)) / len(drawn)
    assert float((found - wanted).abs().max()) < 4 * float((wanted.max() / len(drawn)).sqrt())


def test_finished_texts_leave_the_batch_without_changing_the_others(monkeypatch):
    _, teacher, _, _ = speakers(dtype=torch.float32)
    writer, manner = Writer(teacher, [2, 3, 4, 5, 6, 7]), Manner(10, 20, 1.0, 0)
    cold = dataclasses.replace(manner, temperature=1e-4)
    with_drops = writer.go_on([[token] for token in range(20)], cold, torch.Generator().manual_seed(0))
    monkeypatch.setattr(writing, "_DROP", 0.0)
    assert with_drops == writer.go_on([[token] for token in range(20)], cold, torch.Generator().manual_seed(0))


@pytest.fixture
def people(tied_swap, corpus, tmp_path):
    request = options(tied_swap, corpus, tmp_path / "out")
    pair = open_pair(request)
    return pair, set_up(pair, request, join("cpu"))


def test_own_texts_are_kept_by_what_they_depend_on(people, tied_swap, corpus, tmp_path, monkeypatch):
    pair, bench = people
    shelf, request = Shelf(tmp_path / "shelf"), options(tied_swap, corpus, tmp_path / "out")
    first = own_texts(pair, bench.people.teacher, request, 500, kept=shelf)
    assert len(first) > 3
    monkeypatch.setattr(Writer, "write", lambda *_: pytest.fail("written again"))
    assert own_texts(pair, bench.people.teacher, request, 500, kept=shelf) == first
    with pytest.raises(pytest.fail.Exception):
        own_texts(pair, bench.people.teacher, dataclasses.replace(request, seed=1), 500, kept=shelf)


def test_a_run_without_data_learns_from_the_models_own_texts(tied_swap, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_: str(tmp_path / "cache"))
    monkeypatch.delenv("TOKENADAPT_CACHE", raising=False)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("the old fox\nthe quick night\n")
    request = dataclasses.replace(
        options(tied_swap, tmp_path, tmp_path / "out"), data=(), self_generated=2000, prompts=str(prompts), steps=1
    )
    told = calibrate(request)
    assert told.data == "texts that the source model wrote"
    assert len(list((tmp_path / "cache" / "texts").iterdir())) == 1


def test_snippets_cover_what_is_needed_and_no_more(people):
    pair, bench = people
    reader, new = bench.readers[0], pair.alignment.missing
    texts = [Text(f"{'the quick night. ' * 30}the old fox of the sea sleeps. {'the lazy dog. ' * 30}", "a")] * 3
    ids = reader.encoder.encode([texts[0].text]).ids
    held = np.intersect1d(ids, new)
    assert len(held)
    need = Need.of(pair, [], reader, 1)
    assert need.tokens.tolist() == new.tolist()
    found = snippets(texts, need, reader)
    assert found
    assert not np.isin(held, need.tokens).any()
    assert sum(len(text.text) for text in found) < len(texts[0].text)
    covered = np.unique(np.concatenate([reader.encoder.encode([text.text]).ids for text in found]))
    assert np.isin(held, covered).all()
    assert Need.of(pair, texts, reader, 2).tokens.tolist() == np.setdiff1d(new, held).tolist()


def test_the_source_writes_around_the_pieces_of_a_token(people):
    pair, bench = people
    need = Need.of(pair, [], bench.readers[0], 0)
    token = next(
        token for token in pair.alignment.missing.tolist() if (pair.student.token_bytes[token] or b"").isascii()
    )
    need.left[token] = 3
    texts = written(pair, bench.people.teacher, need, seed=0)
    assert len(texts) == 3
    spelled = pair.student.token_bytes[token].decode()
    assert all(text.text.startswith(spelled) for text in texts)
