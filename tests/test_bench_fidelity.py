"""The fidelity benchmark: what may be typed, what a run keeps, and the page of older runs."""

import argparse
import json
import sys
from pathlib import Path

import pytest

from tokenadapt.errors import RequestError
from tokenadapt.recipe import TransplantOptions

SCRIPTS = Path(__file__).parent.parent / "scripts"
BASE = TransplantOptions("model", "tokenizer", "out")


@pytest.fixture(autouse=True)
def scripts(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("TOKENADAPT_BENCH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pieces", {"method": "pieces"}),
        ("pieces>length+norm", {"method": "pieces", "output_method": "length", "calibrate_norm": True}),
        ("pieces+bias=-3", {"method": "pieces", "bias_per_piece": -3.0}),
        ("hybrid+norm@self:rows", {"method": "hybrid", "space": "self:rows", "calibrate_norm": True}),
        ("hybrid@self:rows+bias=1", {"method": "hybrid", "space": "self:rows", "bias_per_piece": 1.0}),
        ("hybrid@st:mini", {"method": "hybrid", "space": "st:{home}/mini"}),
        ("omp:k=8+donor=small", {"method": "omp:k=8", "donor": "{home}/small"}),
        ("align+corpus=a.txt+corpus=b/c.gz", {"method": "align", "corpus": ("{home}/a.txt", "{home}/b/c.gz")}),
        ("ofa:vectors=words.vec,k=3", {"method": "ofa:vectors={home}/words.vec,k=3"}),
        ("auto:of=ends+learned:share=0.5", {"method": "auto:of=ends+learned:share=0.5"}),
        ("auto:of=normal+norm@self", {"method": "auto:of=normal", "calibrate_norm": True, "space": "self"}),
    ],
)
def test_what_may_be_typed(text, wanted, scripts):
    from fidelity_methods import method_options

    def there(value):
        if isinstance(value, tuple):
            return tuple(map(there, value))
        return value.replace("{home}", str(scripts)) if isinstance(value, str) else value

    found = method_options(BASE, text)
    assert {name: getattr(found, name) for name in wanted} == {name: there(value) for name, value in wanted.items()}
    assert method_options(BASE, "tokenadapt-paper").method == "hybrid:tau=0.6,k=3,g=0.3"


def test_what_lacks_something_is_refused_before_anything_runs(scripts):
    from fidelity_methods import can_be_scored, refuse_what_lacks

    refuse_what_lacks(["pieces", "omp+donor=x", "align+corpus=y"])
    for text in ("pieces>omp", "focus", "ofa:vectors=words.vec"):
        with pytest.raises(RequestError):
            refuse_what_lacks(["pieces", text])
    assert can_be_scored("pieces>learned")
    assert can_be_scored("align+corpus=x")
    assert not can_be_scored("pieces>omp+donor=x")
    assert not can_be_scored("auto:of=ends")


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_a_peak_is_counted_from_the_beginning_of_its_block():
    from fidelity_costs import measured

    before = bytearray(96 << 20)
    with measured() as cost:
        more = bytearray(64 << 20)
        del more
    assert 60 < cost.peak_mb < 80
    with measured() as cost:
        pass
    assert cost.peak_mb < 8
    assert cost.plain().keys() == {"seconds", "peak_mb"}
    assert len(before)


def test_where_no_system_tells_the_peak_there_is_none(monkeypatch, tmp_path):
    import fidelity_costs

    monkeypatch.setattr(fidelity_costs, "PROCESS", tmp_path / "nowhere")
    with fidelity_costs.measured() as cost:
        pass
    assert cost.plain().keys() == {"seconds"}


ENTRY = {"after": {"a": 1.5, "b": 3.0}, "copied": {"a": 1.0, "b": 1.0}, "new": {"a": 0.5, "b": 2.0}, "seconds": 2.4}


def test_the_page_of_an_older_run_has_its_columns_only(tmp_path):
    from fidelity_page import read, table

    run = {"m t untied 2KB": {"before": {"a": 1.0, "b": 2.0}, "methods": {"pieces": ENTRY}}}
    older = table("key", run["m t untied 2KB"]).splitlines()
    assert older[3].endswith("| worst kind | seconds |")
    assert older[5] == "| `pieces` | 0.750 | 0.500 | 1.000 | 1.250 | b +1.00 | 2 |"
    more = {"ends": {**ENTRY, "seconds": 3.0, "peak_mb": 1234, "anchors": {"input": 0.25, "output": 0.125}}}
    (tmp_path / "old.json").write_text(json.dumps(run))
    later = {"pieces": {"anchors": {"tied": 0.5}}} | more
    (tmp_path / "new.json").write_text(json.dumps({"m t untied 2KB": {**run["m t untied 2KB"], "methods": later}}))
    (entry,) = read([tmp_path / "old.json", tmp_path / "new.json"]).values()
    lines = table("key", entry).splitlines()
    assert lines[3].endswith("| seconds | MB | hidden tokens, input / output |")
    assert lines[4].count("|") == lines[5].count("|") == lines[3].count("|")
    assert lines[5].endswith("| 2 |  | 0.500 |")
    assert lines[6].endswith("| 3 | 1,234 | 0.250 / 0.125 |")


def test_tables_of_one_panel_stand_together_and_those_of_less_interest_are_folded():
    from fidelity_page import by_panel, table

    entry = {"before": {"a": 1.0, "b": 2.0}, "methods": {"pieces": ENTRY}}
    found = dict.fromkeys(("m s untied 2KB", "m s tied 2KB", "pocket s untied 2KB", "m t untied 2KB"), entry)
    assert by_panel(found) == ["m s untied 2KB", "m t untied 2KB", "m s tied 2KB", "pocket s untied 2KB"]
    begins = [table(key, entry).splitlines()[0] for key in by_panel(found)]
    assert begins == ["<details open>", "<details open>", "<details>", "<details>"]


def test_what_is_kept_is_read_again_as_the_same_page(tmp_path):
    from fidelity_page import keep, read, table

    run = {"m t untied 2KB": {"before": {"a": 1.0, "b": 2.123456}, "methods": {"pieces": ENTRY}}}
    keep(run, tmp_path / "kept.json")
    (kept,) = read([tmp_path / "kept.json"]).values()
    assert kept["before"] == {"a": 1.0, "b": 2.1235}
    assert table("key", kept) == table("key", run["m t untied 2KB"])


def test_the_picture_has_a_panel_for_what_can_be_compared(tmp_path):
    from fidelity_picture import panels, picture, ranked, short

    excess = {"pieces": 0.5, "ends": 0.7, "hybrid": 0.2, "omp+donor=a/b": 3.0}
    found = {
        "m s untied 2KB": {"methods": {"pieces": 0, "ends": 0}},
        "m t untied 2KB": {"methods": {"pieces": 0, "hybrid": 0, "omp+donor=a/b": 0}},
        "m t tied 2KB": {"methods": {"ends": 0}},
    }
    drawn = panels(found, lambda _, method: excess[method])
    assert drawn.keys() == {"m untied 2KB", "m tied 2KB"}
    assert drawn["m untied 2KB"]["pieces"] == {"s": 0.5, "t": 0.5}
    assert ranked(drawn["m untied 2KB"]) == ["hybrid", "pieces", "ends", "omp+donor=a/b"]
    picture(drawn, tmp_path / "one.svg")
    picture(drawn, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert short("align+corpus=text/train/x.txt.gz+corpus=y/z") == "align+corpus=x.txt.gz+corpus=z"
    assert short("wechsel:source=a/w.vec,target=w.vec") == "wechsel:source=w.vec,target=w.vec"


@pytest.fixture(scope="module")
def target(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    tokenizers["bytelevel-bpe"].save_pretrained(folder)
    return folder


def test_a_run_keeps_what_it_found_and_is_taken_up_again(target, tmp_path, monkeypatch, capsys):
    import bench_fidelity

    (tmp_path / "prose.txt").write_text("The cat sat on the mat and looked at the other cats. " * 8)
    where = tmp_path / "kept.json"
    words = ["--texts", str(tmp_path), "--models", "pocket", "--targets", str(target), "--json", str(where)]

    def run(*more):
        monkeypatch.setattr(sys, "argv", ["bench_fidelity.py", *words, "--kb", "1", *more])
        bench_fidelity.main()
        (entry,) = json.loads(where.read_text()).values()
        return entry["methods"]

    found = run("--methods", "pieces", "--where")
    assert found["pieces"].keys() >= {"after", "copied", "new", "perfect_states", "seconds"}
    kept = json.loads(where.read_text())
    (entry,) = kept.values()
    forced = entry.pop("forced")
    where.write_text(json.dumps(kept))
    assert run("--methods", "pieces", "--where") == found
    assert [one["forced"] for one in json.loads(where.read_text()).values()] == [forced]
    assert "anchors" not in found["pieces"]
    monkeypatch.setattr(bench_fidelity.Bench, "swap", None)  # nothing is made again
    again = run("--methods", "pieces", "--anchors")
    assert {key: value for key, value in again["pieces"].items() if key != "anchors"} == found["pieces"]
    assert again["pieces"]["anchors"].keys() == {"input", "output"}
    assert all(harm > 0 for harm in again["pieces"]["anchors"].values())
    monkeypatch.setattr(bench_fidelity, "Bench", None)
    assert run("--methods", "pieces", "--anchors", "--where") == again
    assert "pieces" in capsys.readouterr().out


def test_harm_to_hidden_tokens_is_that_of_the_rows_as_they_would_be_used(target):
    from bench_fidelity import Bench, Text

    bench = Bench("pocket", str(target), True, [Text("x", ("The cat sat.",), 12)])
    plain, biased, mixed = (bench.anchors(one) for one in ("pieces", "pieces+bias=-3", "ends>pieces"))
    assert biased["input"] == plain["input"] != mixed["input"]
    assert biased["output"] != plain["output"] == mixed["output"]
    hidden = bench.judge.hidden
    assert bench.anchors("hybrid").keys() == {"input", "output"}
    assert bench.judge.hidden is hidden


def test_a_method_that_cannot_be_made_is_named_and_the_others_go_on(target, tmp_path, capsys):
    from bench_fidelity import Bench, Entry, Text, measure

    bench = Bench("pocket", str(target), True, [Text("x", ("The cat sat.",), 12)])
    (tmp_path / "broken.tsv").write_text("no weight\n")
    names = [f"trans:table={tmp_path / 'broken.tsv'}", "pieces"]
    found = {"before": {}, "methods": {}}
    args = argparse.Namespace(methods=names, where=False)
    measure(Entry("key", found, lambda: None), bench, args, names, [])
    assert list(found["methods"]) == ["pieces"]
    assert "key: trans:table=" in capsys.readouterr().err


def test_what_a_model_has_read_is_no_text_for_it(target, tmp_path, monkeypatch):
    import bench_fidelity

    for kind in ("prose", "code_python"):
        (tmp_path / f"{kind}.txt").write_text("The cat sat on the mat. " * 8)
    where = tmp_path / "kept.json"
    words = ["--texts", str(tmp_path), "--models", "pocket", "--targets", str(target), "--json", str(where)]
    monkeypatch.setattr(sys, "argv", ["bench_fidelity.py", *words, "--kb", "1", "--methods", "mean"])
    bench_fidelity.main()
    (entry,) = json.loads(where.read_text()).values()
    assert entry["before"].keys() == entry["methods"]["mean"]["after"].keys() == {"prose"}


def test_a_source_is_measured_once_for_all_its_targets():
    from bench_fidelity import known_before

    kept = {
        "m a untied 2KB": {"before": {}, "methods": {}},
        "m b tied 2KB": {"before": {"x": 1.0, "y": 3.0}, "methods": {}},
        "mm c untied 2KB": {"before": {"x": 2.0}, "methods": {}},
    }
    assert known_before(kept, "home/m", 2, {"x"}) == {"x": 1.0}
    assert known_before(kept, "mm", 2, {"x"}) == {"x": 2.0}
    assert known_before(kept, "mm", 2, {"x", "y"}) == {}
    assert known_before(kept, "m", 8, {"x"}) == known_before(kept, "other", 2, {"x"}) == {}
