"""Held-out anchors against the model itself with other rows, and `auto` as a user runs it."""

import copy
import hashlib
import json
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from tests.command import refused, tokenadapt
from tests.methods.problems import make_problem
from tests.test_model import gemma, granite
from tests.tiny import tiny_model
from tokenadapt import anchors
from tokenadapt.anchors import Anchors, OwnTexts
from tokenadapt.checkpoint.saved_plan import load_plan
from tokenadapt.forward import Sampling
from tokenadapt.methods import parse_method
from tokenadapt.methods.classes import CLASSES
from tokenadapt.methods.make import make_rows
from tokenadapt.model import SourceModel
from tokenadapt.plan import MemoryTable, missing_rows
from tokenadapt.vocab.types import How, Kind

LETTERS = [bytes([code]) for code in b"abcdefghijkl"]
OLD = (None, None, None, None, *LETTERS, *[a + b for a, b in product(LETTERS[:8], LETTERS[:8])])  # 80
NEW = (*LETTERS, b"abcd", b"kl", b"lkl")

MAKERS = {
    "untied": partial(tiny_model, tied=False),
    "tied": tiny_model,
    "gemma": gemma,  # scales its input rows and caps its logits
    "granite": partial(  # scales what comes in by its layers, and divides its logits
        granite,
        logits_scaling=2.0,
        embedding_multiplier=0.5,
        attention_multiplier=0.1,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def pair(request, tmp_path_factory):
    """A model and the judge of its problem; its rows are far apart, so that a wrong one shows."""
    model = MAKERS[request.param](len(OLD)).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
        if request.param == "untied":
            model.get_output_embeddings().weight.mul_(8)
    folder = tmp_path_factory.mktemp("anchors") / request.param
    model.save_pretrained(folder)
    sides = {"input": model.get_input_embeddings(), "output": model.get_output_embeddings()}
    tables = {role: MemoryTable(side.weight.data.clone()) for role, side in sides.items()}
    source = SourceModel(
        folder, tables, tied=request.param != "untied", start=1, stop=[2], sampling=Sampling(20, 24), device="cpu"
    )
    return model, source


def problem_of(source, role):
    return replace(make_problem(OLD, NEW, table=source.table(role).tensor, role=role, space=None), model=source)


def brute(model, own, hidden, rows, sides):
    """Nats of each text from a copy of the model whose tables hold these rows."""
    other = copy.deepcopy(model)
    if len(sides) == 1 and other.get_input_embeddings().weight is other.get_output_embeddings().weight:
        other.get_output_embeddings().weight = torch.nn.Parameter(other.get_output_embeddings().weight.data.clone())
    ends = {"input": other.get_input_embeddings(), "output": other.get_output_embeddings()}
    found = []
    with torch.no_grad():
        for side in sides:
            ends[side].weight[torch.from_numpy(hidden)] = rows
        for text in own.texts:
            logs = other(torch.tensor([text])).logits[0, :-1].double().log_softmax(-1)
            found.append(-logs.gather(1, torch.tensor(text[1:])[:, None]).sum().item())
    return np.array(found)


@pytest.mark.parametrize(
    ("role", "tied", "sides"),
    [("input", False, ["input"]), ("output", False, ["output"]), ("output", True, ["input", "output"])],
    ids=["input", "output", "tied"],
)
def test_the_harm_is_that_of_the_model_with_these_rows(pair, role, tied, sides):
    model, source = pair
    if tied and not source.tied:
        pytest.skip("two tables stay two")
    problem = problem_of(source, role)
    judge = Anchors(problem, source, tied=tied)
    assert len(judge.hidden) > 5
    own = judge.own.first(anchors.READ) if "input" in sides else judge.own  # what is read anew is bounded
    size = sum(len(OLD[token] or b"") for text in own.texts for token in text[1:])
    for name in ("pieces", "ends", "zero"):
        rows = missing_rows(
            problem.table, make_rows(judge.pose(problem, name), parse_method(name)), 0, len(judge.hidden)
        )
        before = brute(model, own, judge.hidden, rows, [])
        after = brute(model, own, judge.hidden, rows, sides)
        want = (after - before) / np.log(2) / size
        assert np.abs(want).max() > 3e-5
        np.testing.assert_allclose(judge.score(problem, name), want, rtol=2e-3, atol=2e-6)
        shares = judge.verdict(problem, name).shares
        assert (shares[:, judge.kinds] != 0).any()
        np.testing.assert_allclose(shares.sum(axis=1), judge.score(problem, name), atol=2e-6)


def test_a_choice_by_class_is_weighed_from_rows_that_were_made_before(pair, monkeypatch):
    _, source = pair
    problem = problem_of(source, "output")
    judge = Anchors(problem, source, tied=False)
    wanted = {
        name: missing_rows(problem.table, judge._make(problem, name), 0, len(judge.hidden)) for name in ("ends", "mean")
    }
    monkeypatch.setattr(anchors, "make_rows", None)
    mixed = missing_rows(
        problem.table, judge._make(problem, "classes:rest=ends,three_inside=mean"), 0, len(judge.hidden)
    )
    three = torch.from_numpy(judge.kinds == CLASSES.index("three_inside"))
    assert torch.equal(mixed, torch.where(three[:, None], wanted["mean"], wanted["ends"]))


def test_their_own_rows_do_no_harm(pair, monkeypatch):
    _, source = pair
    for role in ("input", "output"):
        problem = problem_of(source, role)
        judge = Anchors(problem, source, tied=source.tied)
        true = problem.table.rows(judge.hidden).float()
        monkeypatch.setattr(anchors, "missing_rows", lambda *_, true=true: true)
        np.testing.assert_allclose(judge.score(problem, "pieces"), 0, atol=1e-6)


def test_the_model_and_its_file_are_as_before_whatever_happens(pair, monkeypatch):
    _, source = pair
    weight = source._model.get_input_embeddings().weight
    kept, file = weight.detach().clone(), source.folder / "model.safetensors"
    mark = hashlib.sha256(file.read_bytes()).hexdigest()
    ids, texts = np.array([7, 9]), [[1, 7, 9, 30], [1, 5]]
    other = source.states_with_rows(texts, ids, torch.ones(2, 32))
    assert other.shape == (4, 32)
    assert torch.equal(weight, kept)
    plain = source.states_with_rows(texts, ids[:0], torch.ones(0, 32))
    assert not torch.allclose(other[1:3], plain[1:3])
    torch.testing.assert_close(other[[0, 3]], plain[[0, 3]])  # before and beside them nothing changes

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tokenadapt.forward.inputs_of", fail)
        with pytest.raises(KeyboardInterrupt):
            source.states_with_rows(texts, ids, torch.ones(2, 32))
    assert torch.equal(weight, kept)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == mark


def test_hidden_tokens_are_the_missing_ones_and_no_candidate_may_learn_from_them(pair):
    _, source = pair
    problem = problem_of(source, "output")
    judge = Anchors(problem, source, tied=False)
    posed = judge.pose(problem, "learned")
    assert posed.alignment.missing.tolist() == judge.hidden.tolist()
    assert posed.score is None
    assert not np.isin(judge.hidden, posed.ordinary).any()
    assert (posed.source.kind[judge.hidden] == Kind.UNKNOWN).all()
    assert (posed.alignment.how[np.setdiff1d(np.arange(len(OLD)), judge.hidden)] == How.COPIED).all()
    for at, token in enumerate(judge.hidden):
        run = posed.segmentation.piece[posed.segmentation.start[at] : posed.segmentation.start[at + 1]]
        assert b"".join(OLD[piece] for piece in run) == OLD[token]
    assert posed.segmentation.token_length.tolist() == [len(OLD[token]) for token in judge.hidden]


def test_text_is_cut_without_the_hidden_tokens_so_that_none_is_found_in_it(pair):
    _, source = pair
    problem = problem_of(source, "output")
    judge = Anchors(problem, source, tied=False)
    posed = judge.pose(problem, "align")
    words = ["".join(OLD[token].decode() for token in (*judge.hidden, 5, *judge.hidden[:3]))]
    whole, cut = problem.source.encode(words)[0], posed.source.encode(words)[0]
    assert np.isin(judge.hidden, whole).any()
    assert not np.isin(judge.hidden, cut).any()
    assert b"".join(OLD[token] for token in cut) == words[0].encode()
    assert posed.source.spell([words[0].encode(), b"?"]) == [cut, None]
    assert posed.target.encode(words)[0] == whole  # what is to be made is the target's
    text = replace(posed, corpus=lambda: iter(words))
    made = make_rows(text, parse_method("align"))
    assert not np.isin(judge.hidden, made.source_id).any()


def test_a_judge_may_share_the_texts_of_another(pair):
    _, source = pair
    problem = problem_of(source, "output")
    judge = Anchors(problem, source, tied=False)
    other = Anchors(problem, source, tied=False, open_space=lambda *_: "another").sharing(judge)
    assert other.own is judge.own
    assert other.hidden is judge.hidden
    assert other.pose(problem, "global").space == "another"
    assert judge.pose(problem, "global").space is None
    assert np.array_equal(other.score(problem, "ends"), judge.score(problem, "ends"))


def test_a_space_is_opened_once_over_the_hidden_tokens_and_only_if_asked_for(pair):
    _, source = pair
    problem, opened = problem_of(source, "output"), []

    def opener(*parts):
        opened.append(parts)
        return "a space"

    judge = Anchors(problem, source, tied=False, open_space=opener)
    assert judge.pose(problem, "pieces").space is None
    assert not opened
    assert judge.pose(problem, "hybrid").space == judge.pose(problem, "global").space == "a space"
    assert len(opened) == 1
    assert opened[0][2].missing.tolist() == judge.hidden.tolist()


def test_the_first_texts_are_whole_ones():
    own = OwnTexts(([1, 5, 6], [1, 7], [1, 8, 9, 9]), torch.arange(6.0)[:, None])
    assert own.label.tolist() == [5, 6, 7, 8, 9, 9]
    assert own.owner.tolist() == [0, 0, 1, 2, 2, 2]
    for positions, count in ((1, 1), (2, 1), (3, 2), (5, 2), (6, 3), (99, 3)):
        few = own.first(positions)
        assert (len(few.texts), len(few.states)) == (count, len(few.label))


@pytest.fixture(scope="module")
def target(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    tokenizers["bytelevel-bpe"].save_pretrained(folder)
    return folder


@pytest.mark.parametrize("more", [[], ["--untie"]], ids=["tied", "untied"])
def test_a_user_sees_each_candidates_figure(target, tmp_path, more):
    said = tokenadapt("transplant", "pocket", target, tmp_path / "out", "--method", "auto", "--verify", "tables", *more)
    assert said.code == 0, said.err
    told = [line for line in said.err.splitlines() if line.startswith("auto, ") and "rows by" in line]
    roles = ["input", "output"] if more else ["output"]
    hidden = [line for line in told if "where old tokens are hidden" in line]
    assert [line.split()[1] for line in hidden] == [role for role in roles for _ in range(5)]
    assert any("all new rows in place" in line for line in told)
    assert [line.split()[4].rstrip(":") for line in told[:5]] == ["pieces", "length", "ends", "learned", "hybrid"]
    taken = {line.split()[1]: line.split()[4].rstrip(":") for line in told if line.endswith(": taken")}
    assert taken.keys() == set(roles)
    manifest = json.loads((tmp_path / "out" / "transplant.json").read_text())
    assert manifest["methods"] == dict.fromkeys(roles, "auto")
    found = {role: settings["taken"] for role, settings in manifest["options"]["settings"].items()}
    assert found == load_plan(tmp_path / "out").methods
    for role, method in found.items():  # the best for all, or several by class
        assert method == taken[role] or (method.startswith("classes:") and "rows of tokens" in said.err)


def test_an_unknown_candidate_is_refused_before_anything_is_read(tmp_path):
    words = ("transplant", "nowhere", "nowhere", tmp_path / "out", "--method", "auto:of=length+nothing")
    assert "no method 'nothing'" in refused(2, *words)
    words = ("transplant", "nowhere", "nowhere", tmp_path / "out", "--fallback", "auto:of=none")
    assert "no method 'none'" in refused(2, *words)
