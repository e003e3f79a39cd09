from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.spaces.conftest import make_setting
from tokenadapt.plan import MemoryTable
from tokenadapt.spaces.open import open_space
from tokenadapt.spaces.spelling import RIDGE, SpellingVectors, grams, projected

STEMS = [bytes([97 + a, 97 + b, 97 + c]) for a in range(9) for b in (3, 8, 14) for c in range(8)]
OLD = [None, *STEMS, *(b" " + stem for stem in STEMS[:150]), b"\xe2\x82", b"  "]


def stem_table():
    """Rows that depend on the stem alone, with noise; ` xyz` and `xyz` mean the same to this model."""
    draw = np.random.default_rng(0)
    meaning = {stem: draw.normal(size=24) for stem in STEMS}
    rows = [meaning.get((token or b"").strip(), np.zeros(24)) for token in OLD]
    return torch.tensor(np.array(rows) + 0.05 * draw.normal(size=(len(OLD), 24)) + 2, dtype=torch.float32)


def test_grams_worked_by_hand():
    ends = {b"a\x02", b"a\x03", b"aA", b"a\x02A", b"aA\x03", b"a\x02A\x03"}
    assert grams(b"A") == ends | {b"b\x04a\x05", b"wa"}
    assert {b"w", b"a "} <= grams(b"  ")


def test_a_missing_token_is_near_the_old_one_of_its_stem():
    new = [b" " + stem for stem in STEMS[150:]]
    space = open_space("self", **vars(make_setting(OLD, new, stem_table())))
    ids, cosines = space.neighbours(2)
    right = np.mean([OLD[found[0]].strip() == token.strip() for found, token in zip(ids, new, strict=True)])
    assert right > 0.9
    assert (cosines <= 1.0001).all()
    assert space.name == "self"


def test_the_fit_is_that_of_a_dense_ridge():
    setting = make_setting(OLD, [b"abc"], stem_table())
    made = SpellingVectors(setting.table, (setting.source, setting.target), setting.alignment, np.array([5]))
    made.prepare()
    ids = np.setdiff1d(np.arange(1, len(OLD)), [5])
    x = made._matrix([OLD[i] for i in ids]).toarray().astype(np.float64)
    y = projected(setting.table, ids)
    exact = x @ x.T @ np.linalg.solve(x @ x.T + RIDGE * np.eye(len(x)), y)
    assert np.linalg.norm(x @ made._weight - exact) < 0.05 * np.linalg.norm(exact)


def test_projected_rows_keep_their_angles():
    rows = torch.randn(50, 700, generator=torch.Generator().manual_seed(0))
    rows[1] = rows[0] + 0.1 * rows[1]
    made = projected(MemoryTable(rows), np.arange(50))
    about = (rows - rows.mean(dim=0)).numpy()
    cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in ((made[0], made[1]), (about[0], about[1]))]
    assert cosine[0] == pytest.approx(cosine[1], abs=0.05)


def test_same_vectors_in_any_company_and_at_every_call():
    setting = vars(make_setting(OLD, [b"abd", b"xyz", b"\xe2\x82\xac"], stem_table()))
    one, two = open_space("self", **setting), open_space("self:spelling", **setting)
    whole = one.missing(np.arange(len(one.missing_ids)))
    for row in range(len(whole)):
        assert np.array_equal(two.missing(np.array([row]))[0], whole[row])
    assert np.array_equal(one.encode_texts(["abd"]), one.missing(np.arange(len(whole)))[:1])


def test_special_tokens_and_unknown_bytes_have_no_vector():
    space = open_space("self", **vars(make_setting(OLD, [b"\xf0\x9f"], stem_table())))
    assert not space.source(np.array([0])).any()
    assert space.missing(np.array([0])).shape == (1, 128)


@pytest.mark.parametrize("old", [[b"a"], [None], [b"", b"a"]])
def test_vocabularies_of_next_to_nothing(old):
    space = open_space("self", **vars(make_setting(old, [b"b", b"ab"], torch.ones(len(old), 4))))
    ids, _ = space.neighbours(2)
    assert ids.shape == (2, 2)
    assert np.isfinite(space.missing(np.arange(2))).all()
