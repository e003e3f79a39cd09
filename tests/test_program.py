"""What every command shares: how much is said, where it is logged, how errors show, and how fast help comes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import tokenadapt as package
from tests.command import refused, tokenadapt
from tests.tiny import save_tiny
from tokenadapt.cli import COMMANDS
from tokenadapt.errors import RequestError


@pytest.fixture(scope="module")
def words(tokenizers, tmp_path_factory):
    """A transplant that succeeds, without its output."""
    folder = tmp_path_factory.mktemp("program")
    save_tiny(folder / "model", tokenizers["bytelevel-bpe"])
    tokenizers["unigram"].save_pretrained(folder / "tokenizer")
    return ("transplant", folder / "model", folder / "tokenizer")


MORE = ("--method", "pieces", "--verify", "tables")


def test_version():
    assert tokenadapt("--version").out == f"tokenadapt, version {package.__version__}\n"


def test_quiet_says_nothing(words, tmp_path):
    said = tokenadapt("-q", *words, tmp_path / "out", *MORE)
    assert (said.code, said.out, said.err) == (0, "", "")


def test_results_on_standard_output_and_progress_in_plain_lines_beside_it(words, tmp_path):
    said = tokenadapt(*words, tmp_path / "out", *MORE)
    assert f"Wrote {tmp_path / 'out'}" in said.out
    lines = said.err.splitlines()
    assert lines
    assert all(re.fullmatch(r"[\w ',.:/()-]+: done in [\d.]+ s(, .*)?", line) for line in lines), lines
    assert not set(said.out + said.err) & set("\r\x1b")


def test_verbose_names_every_change_of_the_configuration(words, tmp_path):
    assert "Config: " not in tokenadapt(*words, tmp_path / "out", *MORE).out
    assert "Config: " in tokenadapt("-v", *words, tmp_path / "verbose", *MORE).out


def test_the_log_file_keeps_what_the_terminal_does_not_show(words, tmp_path):
    log = tmp_path / "run.log"
    tokenadapt("-q", "--log-file", log, *words, tmp_path / "out", "--method", "piecs")
    assert "no method" in log.read_text()
    tokenadapt("-q", "--log-file", log, *words, tmp_path / "none" / ".." / "out", *MORE)
    assert "Traceback" in log.read_text()  # the whole story of the first run stays


def test_debug_shows_where_an_error_came_from(words, tmp_path):
    with pytest.raises(RequestError):
        tokenadapt("--debug", *words, tmp_path / "out", "--method", "piecs")
    assert "no method" in refused(2, *words, tmp_path / "out", "--method", "piecs")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    said = tokenadapt(name, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: tokenadapt {name} ")


def test_an_unknown_command():
    said = tokenadapt("transplnat")
    assert said.code == 2
    assert "transplnat" in said.err


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from tokenadapt.cli import cli; cli.main(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'numpy', 'tokenizers', 'rich', 'huggingface_hub'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_the_libraries_own_bars_and_lines_are_not_shown(words, tmp_path):
    """In a process of its own: transformers reads its settings once, when it is imported."""
    command = [sys.executable, "-m", "tokenadapt", *map(str, words), str(tmp_path / "out"), "--method", "pieces"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    for stream in (said.stdout, said.stderr):
        assert "Loading weights" not in stream
        assert "[transformers]" not in stream
        assert "\r" not in stream
