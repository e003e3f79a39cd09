"""Every kind of bad input, as a user meets it: one sentence, a hint, the right exit code, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoint.files import edit_json, rewrite
from tests.command import refused, tokenadapt, untouched
from tests.tiny import save_tiny

TABLE = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def given(tokenizers, tmp_path_factory):
    """A model and a target tokenizer, read only."""
    folder = tmp_path_factory.mktemp("given")
    save_tiny(folder / "model", tokenizers["bytelevel-bpe"], extra_rows=8)
    tokenizers["unigram"].save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture
def work(given, tmp_path):
    """A folder of the test's own with a copy of both, and a place for the output."""
    shutil.copytree(given, tmp_path / "work")
    return tmp_path / "work"


def fails(work: Path, *options: object, code: int = 2, model: object = None, tokenizer: object = None) -> str:
    """The message of a transplant that must not work and must leave the folder as it was."""
    with untouched(work):
        return refused(
            code, "transplant", model or work / "model", tokenizer or work / "tokenizer", work / "out",
            "--method", "pieces", *options,
        )  # fmt: skip


# Inputs that are not there, or are not what they are named.


def test_a_model_that_is_not_there(work):
    (work / "empty").mkdir()
    (work / "note.txt").write_text("no model")
    assert f"There is no model at {work}/none" in fails(work, model=work / "none")
    assert "is empty" in fails(work, model=work / "empty")
    assert "no model folder" in fails(work, model=work / "note.txt")
    assert "has no config.json" in fails(work, model=work / "tokenizer")
    assert "no model" in fails(work, model="this is: no name")


def test_a_tokenizer_that_is_not_there(work):
    (work / "empty").mkdir()
    (work / "note.txt").write_text("no tokenizer")
    (work / "bad.json").write_text('{"model": {"type": "BPE"}}')
    assert "There is no tokenizer at" in fails(work, tokenizer=work / "none")
    assert "is empty" in fails(work, tokenizer=work / "empty")
    assert "neither a tokenizer.json nor" in fails(work, tokenizer=work / "note.txt")
    assert "damaged" in fails(work, tokenizer=work / "bad.json")


def test_a_model_without_its_tokenizer(work):
    (work / "model" / "tokenizer.json").unlink()
    (work / "model" / "tokenizer_config.json").unlink()
    said = fails(work)
    assert "has no tokenizer that can be read" in said
    assert "the model's own tokenizer files" in said


def test_a_tokenizer_that_does_not_fit_its_model(work, tokenizers):
    """Ids beyond the table: the tokenizer of another, larger model."""
    shutil.copy(work / "model" / "tokenizer.json", work / "kept.json")
    save_tiny(work / "small", tokenizers["unigram"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(work / "model" / name, work / "small" / name)
    assert "does not fit its model" in fails(work, model=work / "small")


# Damage.


def test_damaged_weights(work):
    weights = work / "model" / "model.safetensors"
    whole = weights.read_bytes()
    for damaged, word in ((whole[:-100], "promises"), (whole[:50], "cut short"), (b"<html>" * 9, "intact")):
        weights.write_bytes(damaged)
        said = fails(work)
        assert word in said
        assert "again" in said
    weights.write_bytes(b"")
    assert "cut short" in fails(work)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_rows_that_are_no_numbers(work, value):
    def spoil(tensors):
        tensors[TABLE][7, 3] = value

    rewrite(work / "model", spoil)
    said = fails(work)
    assert "not finite in 1 of" in said
    assert "(7)" in said


@pytest.mark.parametrize(
    ("shard", "word"),
    [("gone.safetensors", "missing"), ("../tokenizer/tokenizer.json", "outside"), ("/etc/passwd", "outside")],
)
def test_an_index_that_leads_nowhere_or_out(work, shard, word):
    tensors = load_file(work / "model" / "model.safetensors")
    (work / "model" / "model.safetensors").unlink()
    save_file(tensors, work / "model" / "a.safetensors", metadata={"format": "pt"})
    places = dict.fromkeys(tensors, "a.safetensors") | {TABLE: shard}
    (work / "model" / INDEX).write_text(json.dumps({"weight_map": places}))
    assert word in fails(work)


def test_pickles_are_refused_with_the_remedy(work):
    (work / "model" / "model.safetensors").unlink()
    torch.save({}, work / "model" / "pytorch_model.bin")
    said = fails(work)
    assert "pickles can run any code" in said
    assert "save_pretrained" in said


def test_code_that_comes_with_a_model_is_not_run(work):
    marker = work.parent / "it ran"
    (work / "model" / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    edit_json(
        work / "model" / "config.json", model_type="own", architectures=["Own"],
        auto_map={"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.OwnModel"},
    )  # fmt: skip
    assert "--trust-remote-code" in fails(work)
    assert not marker.exists()


def test_code_that_comes_with_a_tokenizer_is_not_run(work):
    marker = work.parent / "it ran"
    (work / "tokenizer" / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    edit_json(
        work / "tokenizer" / "tokenizer_config.json", tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["own.Own", None]},
    )  # fmt: skip
    tokenadapt("transplant", work / "model", work / "tokenizer", work / "out", "--method", "pieces", "--dry-run")
    assert not marker.exists()


# Requests that cannot work.


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--method", "piecs"], "no method"),
        (["--output-method", "piecs"], "no method"),
        (["--fallback", "piecs"], "no method"),
        (["--method", "local:tau=hot"], "tau"),
        (["--method", "local:heat=1"], "heat"),
        (["--method", "global:k=0"], "k"),
        (["--method", "local", "--space", "nowhere"], "no space"),
        (["--method", "local", "--space", "static:/none"], "no static table"),
        (["--method", "local", "--space", "self:states=2"], "depth"),
        (["--pad-to-multiple", "0"], "pad-to-multiple"),
        (["--bias-per-piece", "nan"], "bias-per-piece"),
        (["--map", "nonsense"], "TARGET=SOURCE_TEXT"),
        (["--map", "no-such-token=the"], "no-such-token"),
        (["--map-file", "/none"], "map file"),
        (["--config", "no-such-recipe"], "no recipe"),
    ],
)
def test_a_request_that_cannot_work(work, options, word):
    assert word in fails(work, *options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--verify", "deeply"], "--verify"),
        (["--seed", "high"], "--seed"),
        (["--dtype", "int8"], "--dtype"),
        (["--mehtod", "pieces"], "--mehtod"),
    ],
)
def test_a_command_line_of_no_form(work, options, word):
    """The parser's own words: usage and one line."""
    with untouched(work):
        said = tokenadapt("transplant", work / "model", work / "tokenizer", work / "out", *options)
    assert said.code == 2
    assert word in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("dtype: int8", "dtype"),
        ("dtype: nn", "dtype"),
        ("verify: deeply", "verify"),
        ("seed: high", "seed"),
        ("bias-per-piece: .inf", "bias-per-piece"),
        ("metod: pieces", "metod"),
    ],
)
def test_a_recipe_that_cannot_work(work, line, word):
    (work / "mine.yaml").write_text(line + "\n")
    assert word in fails(work, "--config", work / "mine.yaml")


# Outputs that may not be.


def test_an_output_that_exists_or_lies_inside_an_input(work):
    def to(output: Path, *options: str) -> str:
        with untouched(work):
            return refused(2, "transplant", work / "model", work / "tokenizer", output, "--method", "pieces", *options)

    (work / "there").mkdir()
    (work / "there" / "mine.txt").write_text("mine")
    (work / "link").symlink_to(work / "there")
    assert "exists already" in to(work / "there")
    assert "exists already" in to(work / "there" / "mine.txt")
    assert "is a link" in to(work / "link", "--overwrite")
    assert "lies inside the input" in to(work / "model" / "out")
    assert "lies inside the input" in to(work / "model" / "deep" / "er" / "out")
    assert "is the input itself" in to(work / "model", "--overwrite")
    assert "lies inside the output" in to(work, "--overwrite")
    assert "may replace" in to(work / "there" / "mine.txt", "--overwrite")


def test_no_space_on_disk(work, monkeypatch):
    """A disk that fills while the tables are written: what was written goes, and the sentence says so."""

    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    from tokenadapt.checkpoint import rewrite as writing

    monkeypatch.setattr(writing, "copy_range", full)
    assert "no room left" in fails(work, code=1)


def test_no_permission(work, monkeypatch):
    """Simulated, since root may write anywhere."""
    honest = Path.mkdir

    def mkdir(self, *args, **options):
        if work in self.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        honest(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    said = fails(work, code=1)
    assert "cannot be written" in said
    assert "permission" in said


def test_a_cache_that_cannot_be_written(work, monkeypatch):
    """Said before an encoder is run. A cache under a file can be written by nobody, root included."""
    (work / "file").write_text("in the way")
    monkeypatch.setenv("TOKENADAPT_CACHE", str(work / "file"))
    said = fails(work, "--method", "local", "--space", f"hf:{work / 'model'}")
    assert "cache" in said
    assert "TOKENADAPT_CACHE" in said


def test_the_hub_cannot_be_reached(work, monkeypatch):
    """Tests run with HF_HUB_OFFLINE=1."""
    monkeypatch.setenv("HF_HUB_CACHE", str(work / "hub"))
    for side in ("model", "tokenizer"):
        said = fails(work, code=1, **{side: "nobody/no-such-model"})
        assert "cannot be reached" in said
        assert "hf download nobody/no-such-model" in said
    said = fails(work, "--method", "local", "--space", "hf:nobody/no-such-encoder", code=1)
    assert "no-such-encoder" in said


def test_the_wrong_place_for_a_log(work):
    with untouched(work):
        said = refused(2, "--log-file", work / "none" / "run.log", "methods")
    assert "log" in said


# Signals, and a Hub that refuses: whole processes.

_WAITING = """
import sys, time
from tokenadapt import transplant
honest = transplant.assemble
def slow(*args, **options):
    manifest = honest(*args, **options)
    print("written", flush=True)
    time.sleep(60)
transplant.assemble = slow
from tokenadapt.cli import main
main()
"""


def start(*words: object, program: str = _WAITING, **environment: str) -> subprocess.Popen[str]:
    """A run of the whole program that stops for a minute when its result is written and not yet in place."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


def test_signals_and_a_refusing_hub(work):
    """Ctrl-C ends with 130, SIGTERM with 143, both without staging folders; a Hub that refuses says what to do."""
    command = ("-q", "transplant", work / "model", work / "tokenizer")
    with untouched(work):
        runs = {
            number: start(*command, work / number.name, "--method", "pieces")
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        hub = start(
            *("transplant", "nobody/no-such-model", work / "tokenizer", work / "out"),
            program="from tokenadapt.cli import main; main()",
            HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_HOME=str(work.parent / "hub"),
        )  # fmt: skip
        for number, run in runs.items():
            assert run.stdout is not None
            assert run.stdout.readline() == "written\n"
            assert any(path.name.startswith(f".{number.name}.tokenadapt-") for path in work.iterdir())
            run.send_signal(number)
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            _, err = runs[number].communicate(timeout=60)
            assert runs[number].returncode == code, err
            assert len(err.strip().splitlines()) == 1, err
        _, err = hub.communicate(timeout=120)
    assert hub.returncode == 1, err
    assert "cannot be reached" in err
    assert "hf download nobody/no-such-model" in err
    assert "Traceback" not in err
