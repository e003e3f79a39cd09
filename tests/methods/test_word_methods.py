"""`wechsel` and `ofa` against plain loops over the published formulas."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from tests.methods.problems import TinyModel, make_problem
from tests.methods.test_first import terms
from tokenadapt.errors import MissingExtraError, RequestError
from tokenadapt.finishing import add_bias, calibrate_norms
from tokenadapt.methods import Chosen
from tokenadapt.methods.by_vectors import nearest_rows
from tokenadapt.methods.make import make_rows, run
from tokenadapt.methods.words import read_word_vectors, subword_vectors
from tokenadapt.plan import missing_rows
from tokenadapt.progress import SILENT
from tokenadapt.vocab.types import Kind

OLD = (b" ", b"the", b"re", b"in", b"t", b"h", b"e", b"r", b"i", b"n", b"g")
NEW = (b" ", b"there", b"rein", b"the", b"ing", b"t", b"h", b"e", b"x")
ENGLISH = ("the", "there", "rein", "in", "thing")
GERMAN = ("the", "there", "rein", "ing", "hing")


def write(path, words, seed, head=False):
    vectors = np.random.default_rng(seed).normal(size=(len(words), 4)).astype(np.float32)
    lines = [f"{word} {' '.join(repr(float(x)) for x in row)}" for word, row in zip(words, vectors, strict=True)]
    path.write_text("\n".join([f"{len(words)} 4"] * head + lines) + "\n", encoding="utf-8")
    return dict(zip(words, vectors.astype(np.float64), strict=True))


def plain_subwords(vocab, words, by_frequency):
    """{id: unit vector} by loops: words in file order, weight 1 / rank or 1."""
    sums = {}
    for rank, (word, vector) in enumerate(words.items(), 1):
        for text in (word, " " + word):
            for index in set(vocab.encode([text])[0]):
                weight = 1 / rank if by_frequency else 1.0
                total, share = sums.get(index, (0, 0))
                sums[index] = (total + weight * vector, share + weight)
    return {index: total / share / np.linalg.norm(total / share) for index, (total, share) in sums.items()}


def plain_weights(new, old, k, tau):
    scored = sorted(((float(new @ vector), index) for index, vector in old.items()), key=lambda p: (-p[0], p[1]))[:k]
    grown = [math.exp(score / tau) for score, _ in scored]
    return {index: g / sum(grown) for (_, index), g in zip(scored, grown, strict=True)}


@pytest.mark.parametrize("turned", [True, False])
def test_wechsel_equals_plain_loops(tmp_path, turned):
    here, there = write(tmp_path / "en.vec", ENGLISH, 0, head=True), write(tmp_path / "de.vec", GERMAN, 1)
    (tmp_path / "pairs.txt").write_text(
        "The there\nthere\trein\nthing hing\nunknown word\nrein the\nthree words here\n"
    )
    problem = make_problem(old=OLD, new=NEW)
    options = {"source": tmp_path / "en.vec", "target": tmp_path / "de.vec", "k": 3, "tau": 0.2}
    plan = run(problem, Chosen("wechsel", options | ({"dictionary": tmp_path / "pairs.txt"} if turned else {})))
    old, new = plain_subwords(problem.source, here, True), plain_subwords(problem.target, there, True)
    if turned:
        pairs = [("the", "there"), ("there", "rein"), ("thing", "hing"), ("rein", "the")]
        left, right = np.stack([here[a] for a, _ in pairs]), np.stack([there[b] for _, b in pairs])
        # `The` counts in lower and title case, of which the file has one; the others count once for each spelling
        repeats = [2, 2, 2, 2]
        repeats[0] = 1
        turn, _ = orthogonal_procrustes(np.repeat(left, repeats, 0), np.repeat(right, repeats, 0))
        old = {index: vector @ turn for index, vector in old.items()}
    for j, index in enumerate(problem.alignment.missing):
        want = plain_weights(new[index], old, 3, 0.2) if index in new else {}
        assert terms(plan, j) == pytest.approx(want, abs=1e-4)
    assert plan.empty.tolist() == [False, False, False, True]


@pytest.mark.parametrize("keep_dim", [0, 3, 8])
def test_ofa_equals_plain_loops(tmp_path, keep_dim):
    words = write(tmp_path / "all.vec", ("eng:the", "deu:rein$", "there", "eng:thing"), 2)
    plain = {"the": words["eng:the"], "rein": words["deu:rein$"], "there": words["there"], "thing": words["eng:thing"]}
    problem = make_problem(old=OLD, new=NEW)
    made = run(problem, Chosen("ofa", {"vectors": tmp_path / "all.vec", "k": 4, "keep_dim": keep_dim}))
    old, new = plain_subwords(problem.source, plain, False), plain_subwords(problem.target, plain, False)
    table = problem.table.tensor.double().numpy()
    if 0 < keep_dim < 8:
        u, s, vh = np.linalg.svd(table, full_matrices=False)
        table = (u[:, :keep_dim] * s[:keep_dim]) @ vh[:keep_dim]
    rows = missing_rows(problem.table, made, 0, 4).numpy()
    for j, index in enumerate(problem.alignment.missing):
        if index in new:
            want = sum(w * table[i] for i, w in plain_weights(new[index], old, 4, 0.1).items())
            np.testing.assert_allclose(rows[j], want, atol=1e-4)
    assert made.empty.tolist() == [False, False, False, True]


def test_ofa_gives_its_primitives_on_request_and_whatever_follows_keeps_them(tmp_path):
    write(tmp_path / "all.vec", ENGLISH, 2)
    problem = make_problem(old=OLD, new=NEW, role="output")
    options = {"vectors": tmp_path / "all.vec", "keep_dim": 3}
    plain = run(problem, Chosen("ofa", options))
    made = make_rows(problem, Chosen("ofa", options | {"factors": True}))
    assert plain.primitives is None
    P = made.primitives
    left = np.linalg.svd(problem.table.tensor.double().numpy(), full_matrices=False)[2][:3]
    np.testing.assert_allclose((P.T @ P).numpy(), left.T @ left, atol=1e-5)
    kept = ~plain.empty
    torch.testing.assert_close(made.rows[kept], (made.rows @ P.T @ P)[kept])
    torch.testing.assert_close(made.rows[kept], plain.rows[kept])
    assert torch.equal(calibrate_norms(problem, made).primitives, P)
    with_model = replace(problem, model=TinyModel(problem.table.tensor))
    assert torch.equal(add_bias(with_model, made, -1.0).primitives, P)


def test_ofa_says_what_is_lost(tmp_path):
    """Squared lengths of 9, 4 and 1 along three axes: two are kept, 1 of 14 is lost."""
    write(tmp_path / "all.vec", ENGLISH, 2)
    table = torch.zeros(len(OLD), 3)
    table[0, 0], table[1, 2], table[2, 1] = 3, 2, 1
    said = []
    progress = SimpleNamespace(stage=SILENT.stage, note=said.append)
    run(
        replace(make_problem(old=OLD, new=NEW, table=table), progress=progress),
        Chosen("ofa", {"vectors": tmp_path / "all.vec", "keep_dim": 2}),
    )
    assert "2 of 3 directions" in said[0]
    assert "7.1%" in said[0]


def test_a_tokens_vector_is_the_mean_of_the_words_that_hold_it_by_hand(tmp_path):
    (tmp_path / "w.vec").write_text("there 1 0\nthe 0 1\n")
    vectors = subword_vectors(make_problem(old=OLD, new=NEW).source, read_word_vectors(tmp_path / "w.vec", 10))
    # `the` is in both words: (1 * (1, 0) + 1/2 * (0, 1)) / 1.5; `re` is in the first alone
    assert vectors[1].tolist() == pytest.approx([2 / 5**0.5, 1 / 5**0.5])
    assert vectors[2].tolist() == [1, 0]
    assert not vectors[3].any()
    assert len(read_word_vectors(tmp_path / "w.vec", 1).words) == 1


def test_ngrams_of_fasttexts_own_format_give_any_token_a_vector(tmp_path):
    gensim = pytest.importorskip("gensim")
    from gensim.models.fasttext import save_facebook_model

    model = gensim.models.FastText(
        [["there", "rein", "thing"]] * 20, vector_size=4, min_count=1, epochs=1, seed=0, bucket=50
    )
    save_facebook_model(model, str(tmp_path / "w.bin"))
    words = read_word_vectors(tmp_path / "w.bin", 10)
    vectors = subword_vectors(make_problem(old=OLD, new=NEW).source, words)
    assert vectors[1].any()
    np.testing.assert_allclose(vectors[1] * np.linalg.norm(model.wv["the"]), model.wv["the"], atol=1e-5)
    assert not vectors[0].any()  # a space is no text


def test_fasttexts_own_format_without_the_library_is_said_plainly(tmp_path, monkeypatch):
    (tmp_path / "w.bin").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "gensim.models.fasttext", None)
    with pytest.raises(MissingExtraError, match="needs the package gensim"):
        run(make_problem(old=OLD, new=NEW), Chosen("ofa", {"vectors": tmp_path / "w.bin"}))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"en.vec": "a 1 0\n", "de.vec": "a 1 0 0\n"}, "vectors of 2 numbers.*of 3"),
        ({"en.vec": "a 1 0\n", "de.vec": "a 1 0\n", "pairs.txt": "x y\n"}, "No pair of"),
        ({"en.vec": "a 1 0\n", "de.vec": "a 1 0\n"}, "no dictionary"),
        ({"en.vec": "a 1 0\n"}, "no file of word vectors"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, files, says):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = {"source": tmp_path / "en.vec", "target": tmp_path / "de.vec", "dictionary": tmp_path / "pairs.txt"}
    with pytest.raises(RequestError, match=says):
        run(make_problem(old=OLD, new=NEW), Chosen("wechsel", options))


def test_rows_of_a_table_with_fewer_rows_than_tokens_are_no_neighbours(tmp_path):
    write(tmp_path / "all.vec", ENGLISH, 3)
    problem = make_problem(old=(*OLD, b"thin"), new=NEW, table=torch.randn(len(OLD), 8))
    plan = run(problem, Chosen("ofa", {"vectors": tmp_path / "all.vec", "k": 50}))
    assert plan.source_id.max() < len(OLD)


def test_a_token_whose_bytes_cannot_be_told_is_no_neighbour():
    problem = make_problem(old=OLD, new=NEW)
    old = np.eye(len(OLD), dtype=np.float32)
    new = np.zeros((len(NEW), len(OLD)), np.float32)
    new[:, 1:3] = 0.8, 0.6  # nearest to token 1, then to token 2
    assert nearest_rows(problem, old, new, 1, 0.1).source_id.tolist() == [1] * len(problem.alignment.missing)
    kind = problem.source.kind.copy()
    kind[1] = Kind.UNKNOWN
    other = replace(problem, source=replace(problem.source, kind=kind))
    assert set(nearest_rows(other, old, new, 1, 0.1).source_id.tolist()) == {2}
    assert old[1].any()
