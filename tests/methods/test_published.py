"""Names, defaults and sources of the published methods, as their papers have them; one file and one signature each."""

import inspect
from pathlib import Path

import pytest

from tokenadapt.methods import METHODS
from tokenadapt.methods.options import parameters

ARXIV = {
    "pieces": "2402.09977",
    "local": "2505.09738",
    "global": "2505.09738",
    "hybrid": "2505.09738",
    "merge": "2406.11477",
    "align": "2406.11477",
    "focus": "2305.14481",
    "wechsel": "2112.06598",
    "ofa": "2311.08849",
    "clp": "2301.09626",
    "omp": "2506.06607",
    "sava": "2504.17025",
    "cw2v": "2407.05841",
    "normal": "2407.05841",
    "trans": "2408.04303",
    "tokalign": "2506.03523",
    "asymmetric": "2608.03494",
}
DEFAULTS = {
    "align": {"texts": 30_000},
    "focus": {"dim": 100, "epochs": 3, "min_count": 10},
    "wechsel": {"k": 10, "tau": 0.1},
    "ofa": {"k": 10, "tau": 0.1, "keep_dim": 0, "factors": False},
    "clp": {"k": 0},
    "omp": {"k": 64, "atoms": "unit"},
    "sava": {"map": "affine", "standardise": True},
    "trans": {"min_count": 10.0},
    "tokalign": {"dim": 300, "window": 15, "epochs": 15, "pivots": 300},
    "hybrid": {"tau": 0.3, "k": 3, "g": 0.3, "theta": 0.0},
    "ends": {"decay": 0.5},
}
CHOICES = {
    ("omp", "atoms"): "one of unit, raw, centred",
    ("sava", "map"): "one of affine, orthogonal",
    ("normal", "covariance"): "one of full, diagonal, scalar",
}


@pytest.mark.parametrize("name", ARXIV)
def test_the_paper_is_named(name):
    assert f"arXiv:{ARXIV[name]}" in METHODS[name].citation


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_the_papers(name):
    known = parameters(METHODS[name].load())
    assert {option: known[option].default for option in DEFAULTS[name]} == DEFAULTS[name]


@pytest.mark.parametrize(("name", "option"), CHOICES)
def test_forms_that_may_be_chosen(name, option):
    assert parameters(METHODS[name].load())[option].values == CHOICES[name, option]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_one_function_of_the_one_signature_in_a_small_file(name):
    function = METHODS[name].load()
    problem, *options = inspect.signature(function).parameters.values()
    assert (problem.name, problem.annotation) == ("problem", "Problem")
    assert all(option.kind is inspect.Parameter.KEYWORD_ONLY for option in options)
    assert set(inspect.signature(function).return_annotation.split(" | ")) <= {"Plan", "Dense"}
    path = Path(inspect.getsourcefile(function))
    assert path.name == f"{METHODS[name].module}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 200
