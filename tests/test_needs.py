"""A method without what it needs is refused before anything is opened, and says what to add.

Run: scripts/test tests/test_needs.py
"""

import pytest

from tokenadapt.errors import RequestError
from tokenadapt.estimate import estimate
from tokenadapt.methods import METHODS
from tokenadapt.recipe import TransplantOptions
from tokenadapt.transplant import transplant

NEEDY = {name: "--corpus FILE" for name, method in METHODS.items() if "corpus" in method.needs}
NEEDY |= {name: "--donor MODEL" for name, method in METHODS.items() if "donor" in method.needs}


def refusal(run, tmp_path, **options):
    """The error of a run whose model and tokenizer do not exist: what is said must come before that."""
    with pytest.raises(RequestError) as caught:
        run(TransplantOptions(str(tmp_path / "model"), str(tmp_path / "tokenizer"), str(tmp_path / "out"), **options))
    return caught.value


@pytest.mark.parametrize("run", [transplant, estimate])
@pytest.mark.parametrize("role", ["method", "output_method", "fallback"])
def test_a_corpus_or_donor_that_is_missing(run, role, tmp_path):
    for name, how in NEEDY.items():
        error = refusal(run, tmp_path, **{role: name})
        assert f"The method {name} needs" in error.message
        assert error.hint == f"Add {how}, or choose a method that does without."


@pytest.mark.parametrize("outer", ["auto:of={}", "auto:of=ends+{}+length", "classes:two={}", "classes:rest={}"])
@pytest.mark.parametrize("role", ["method", "output_method", "fallback"])
def test_what_a_method_names_needs_is_missing_too(outer, role, tmp_path):
    for name, how in NEEDY.items():
        error = refusal(transplant, tmp_path, **{role: outer.format(name)})
        assert f"The method {name} needs" in error.message
        assert how in error.hint
    error = refusal(transplant, tmp_path, **{role: outer.format("trans")})
    assert "trans needs a file" in error.message
    for name in NEEDY:
        error = refusal(transplant, tmp_path, **{role: outer.format(name)}, corpus=("text.txt",), donor="donor")
        assert name not in error.message


@pytest.mark.parametrize(
    ("method", "message", "hint"),
    [
        ("auto:of=ends+ofa:vectors=none.vec", "no file none.vec, which the method ofa is to read (vectors)", "path"),
        ("classes:two=merg", "no method 'merg'", "Choose one of"),
        ("trans", "trans needs a file, and none of its options table and parallel names one", "trans:table=PATH or"),
        ("trans:table=none.tsv", "no file none.tsv, which the method trans is to read (table)", "path"),
        ("wechsel:source=a.vec", "wechsel cannot do without target", "Write wechsel:source=a.vec,target=PATH."),
        ("ofa:vectors=", "The option 'vectors' of the method ofa has no value", "Write ofa:vectors=VALUE."),
        ("ofa:vectors=none.vec", "no file none.vec", "path"),
    ],
)
def test_files_that_are_missing(method, message, hint, tmp_path):
    error = refusal(transplant, tmp_path, method=method)
    assert message in error.message
    assert hint in error.hint


def test_what_is_given_is_not_asked_for(tmp_path):
    """The next thing that is wrong is the model."""
    for name in NEEDY:
        error = refusal(transplant, tmp_path, method=name, corpus=("text.txt",), donor="donor")
        assert name not in error.message
