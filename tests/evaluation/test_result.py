"""Figures from sums, intervals, tables, and runs kept as files."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.evaluation.conftest import Text
from tokenadapt.errors import RequestError
from tokenadapt.evaluation import EvalOptions, EvalResult, ModelScore
from tokenadapt.evaluation.bootstrap import interval, resample
from tokenadapt.evaluation.markdown import as_markdown
from tokenadapt.evaluation.measures import Sums, measure
from tokenadapt.evaluation.report import as_json
from tokenadapt.evaluation.saved import read_saved, save
from tokenadapt.evaluation.texts import keep

OPTIONS = EvalOptions(bootstrap=200)
FACTS = {"dtype": "float32", "device": "cpu", "context": 64, "begin": "none", "positions": 64}


def made(*bits: list[float], options: EvalOptions = OPTIONS, **more: object) -> EvalResult:
    texts = keep([Text("one two", "en"), Text("drei", "de"), Text("", "de"), Text("vier", "de")])
    tokens = np.array([2, 1, 0, 2])
    models = tuple(
        ModelScore(f"m{index}", FACTS, np.array(one), tokens, tokens >= 0, np.ones(4, dtype=bool), 2.0)
        for index, one in enumerate(bits)
    )
    return EvalResult(texts, models, "m0", tokens, options, **more)


def test_measures_by_hand():
    sums = Sums(*(np.array(values) for values in ([6.0, 4.0], [2, 1], [3, 4], [2, 1], [4, 1])))
    found = measure(sums)
    assert found.bits_per_byte == pytest.approx(10 / 7)
    assert found.median_bits_per_byte == pytest.approx((2 + 1) / 2)
    assert found.byte_perplexity == pytest.approx(2 ** (10 / 7))
    assert found.word_perplexity == pytest.approx(2 ** (10 / 3))
    assert found.token_perplexity == pytest.approx(2 ** (10 / 3))
    assert found.reference_perplexity == pytest.approx(2 ** (10 / 5))
    assert found.paper_perplexity == pytest.approx((2**3 + 2**4) / 2)
    assert found.bytes_per_token == pytest.approx(7 / 3)


def test_nothing_to_divide_by_is_null_in_json():
    found = measure(Sums(*(np.array(values) for values in ([0.0], [0], [0], [0], [0]))))
    assert math.isnan(found.bits_per_byte)
    assert found.as_dict()["bits_per_byte"] is None
    assert measure(Sums(*(np.array(v) for v in ([9e4], [1], [1], [1], [1])))).as_dict()["word_perplexity"] is None


def test_rows_compare_with_the_first_model_on_each_subset():
    rows = made([7.0, 4, 0, 4], [14.0, 8, 0, 2]).rows()
    assert [(row.model, row.subset) for row in rows] == [
        ("m0", None), ("m1", None), ("m0", "en"), ("m1", "en"), ("m0", "de"), ("m1", "de"),
    ]  # fmt: skip
    assert rows[1].excess == pytest.approx(24 / 15 - 1)
    assert rows[5].excess == pytest.approx(10 / 8 - 1)
    assert rows[1].paper_ratio == pytest.approx(np.mean([2**7, 2**8, 2**1]) / np.mean([2**3.5, 2**4, 2**2]))
    low, high = rows[1].excess_interval
    assert low <= rows[1].excess <= high
    assert math.isnan(rows[3].excess_interval[0])  # one document has no spread


def test_pairing_takes_the_documents_own_difficulty_out():
    draw = np.random.default_rng(0)
    base = draw.uniform(100, 1000, 400)
    drawn = resample(np.stack([base, base + 20.0]), np.full(400, 200), 300, seed=1)
    low, high = interval(drawn[1] - drawn[0])
    assert low == pytest.approx(0.1)
    assert high == pytest.approx(0.1)
    low, high = interval(drawn[0])
    spread = base.std() / 200 / math.sqrt(400)
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.2)


def test_resamples_are_the_seed_s():
    bits, size = np.ones((1, 9)) * np.arange(9), np.full(9, 3)
    assert np.array_equal(resample(bits, size, 5, 7), resample(bits, size, 5, 7))
    assert not np.array_equal(resample(bits, size, 5, 7), resample(bits, size, 5, 8))


def test_an_interrupted_run_compares_what_all_have_scored():
    result = made([7.0, 4, 0, 4], [9.0, 0, 0, 0], interrupted=130)
    result.models[1].scored[1:] = False
    assert result.rows()[1].measures.documents == 1
    assert result.rows()[1].excess == pytest.approx(2 / 7)
    assert as_json(result)["partial"] is True
    assert "PARTIAL" in as_markdown(result)


def test_json_is_strict_json_with_the_figure_under_its_key():
    report = json.loads(json.dumps(as_json(made([7.0, 4, 0, 4], [14.0, 8, 0, 2])), allow_nan=False))
    assert report["bits_per_byte"] == report["models"][0]["bits_per_byte"] == 1
    assert report["models"][1]["subsets"]["de"]["excess"] == pytest.approx(0.25)
    assert report["models"][0]["bytes_per_second"] == 7.5


def test_markdown_never_shows_a_token_perplexity_without_bits_per_byte():
    shown = as_markdown(made([7.0, 4, 0, 4], [14.0, 8, 0, 2]))
    (header,) = [line for line in shown.splitlines() if "per own token" in line and line.startswith("|")]
    assert "bits/byte" in header
    assert "| m1 | 1.6000 |" in shown


def test_a_saved_run_comes_back(tmp_path):
    result = made([7.0, 4, 0, 4], [14.0, 8, 0, 2.125])
    save(result, tmp_path / "run.json")
    back = read_saved(tmp_path / "run.json")
    assert as_json(back) == as_json(result)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no saved run"),
        ('{"schema": "tokenadapt.eval/1"}', "no saved run"),
        ('{"schema": "tokenadapt.eval/1", "per_document": {}, "options": {}}', "damaged"),
    ],
)
def test_another_file_is_no_baseline(tmp_path, content, said):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RequestError, match=said):
        read_saved(tmp_path / "run.json")
    with pytest.raises(RequestError, match="cannot be read"):
        read_saved(tmp_path / "nothing.json")


def test_a_corpus_without_text_is_refused():
    with pytest.raises(RequestError, match="no text"):
        keep([Text(""), Text("")])
    with pytest.raises(RequestError, match="surrogate"):
        keep([Text("\ud800")])
