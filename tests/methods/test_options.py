import json
from typing import get_args

import pytest

from tokenadapt.errors import RequestError
from tokenadapt.methods import METHODS, Chosen, parse_method
from tokenadapt.methods.options import parameters
from tokenadapt.methods.registry import NEEDS, Need


def test_a_name_alone_and_a_name_with_options():
    assert parse_method("pieces").options == {}
    chosen = parse_method("hybrid:tau=0.6, k=5")
    assert (chosen.name, chosen.options) == ("hybrid", {"tau": 0.6, "k": 5})
    assert chosen.settings == {"tau": 0.6, "k": 5, "g": 0.3, "theta": 0.0}
    assert str(chosen) == "hybrid:tau=0.6,k=5"
    assert parse_method(str(chosen)) == chosen
    assert parse_method("normal:covariance=diagonal").options == {"covariance": "diagonal"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "no method 'nonsense'.*pieces"),
        ("", "no method ''"),
        ("pieces:tau=1", "no option 'tau'.*takes no options"),
        ("hybrid:x=1", "no option 'x'.*tau, k, g, theta"),
        ("hybrid:k=2.5", "'2.5' is no value for the option k.*whole number at least 1"),
        ("hybrid:k=0", "'0' is no value.*at least 1"),
        ("hybrid:tau=0", "'0' is no value.*above 0"),
        ("hybrid:tau=nan", "'nan' is no value"),
        ("hybrid:g=1.5", "at least 0 and at most 1"),
        ("hybrid:tau", "'tau'.*no value.*hybrid:tau=VALUE"),
        ("normal:covariance=round", "one of full, diagonal, scalar"),
        ("wechsel:k=3", "cannot do without source and target.*wechsel:k=3,source=PATH,target=PATH"),
        ("wechsel:source=,target=x", "'source' of the method wechsel has no value"),
    ],
)
def test_what_is_wrong_is_named_with_what_exists(text, says):
    with pytest.raises(RequestError, match=f"(?s){says}") as caught:
        parse_method(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", METHODS)
def test_every_line_of_the_registry_can_be_loaded_and_explains_itself(name):
    method = METHODS[name]
    function = method.load()
    assert function.__doc__
    assert method.summary
    assert set(method.needs) <= set(NEEDS) == set(get_args(Need))
    for parameter in parameters(function).values():
        if parameter.default is not None and not parameter.required:
            assert parameter.read(str(parameter.default)) == parameter.default


def test_paths_are_known_as_such():
    chosen = parse_method("wechsel:source=a.vec,target=b.vec,k=5")
    assert [path.name for path in chosen.paths] == ["a.vec", "b.vec"]
    assert chosen.settings["dictionary"] is None
    assert parse_method(str(chosen)) == chosen
    assert "source" not in Chosen("wechsel").settings


def test_a_file_is_recorded_with_its_hash(tmp_path):
    (tmp_path / "w.vec").write_bytes(b"abc")
    settings = parse_method(f"ofa:vectors={tmp_path / 'w.vec'},k=4").settings
    assert settings["vectors"]["sha256"].startswith("ba7816bf")  # the standard's own example
    assert json.loads(json.dumps(settings))["k"] == 4
    assert parse_method("ofa:vectors=gone.vec").settings["vectors"] == {"file": "gone.vec"}
