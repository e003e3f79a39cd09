"""Figures by hand, and the commands end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.training.conftest import story
from tokenadapt.cli import cli
from tokenadapt.corpus import Document
from tokenadapt.training.bpe import ALPHABET
from tokenadapt.training.compare import Subject, borders, measure, overlap, supertoken_value, unreachable
from tokenadapt.training.inventory import inventory
from tokenadapt.vocab.load import LoadedTokenizer


def subject(merges: list[tuple[str, str]], extra: tuple[str, ...] = (), name: str = "made") -> Subject:
    """A byte-level tokenizer with exactly these merges, and tokens that no merge makes."""
    tokens = [*ALPHABET, *("".join(merge) for merge in merges), *extra]
    made = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return Subject.of(LoadedTokenizer(name, None, PreTrainedTokenizerFast(tokenizer_object=made)), name)


def test_figures_by_hand():
    made = subject([("a", "b"), ("Ġ", "ab"), ("ab", "Ġab")])
    documents = [Document("ab ab", "x", "", 1), Document("ß ab", "y", "", 1), Document("ab", "x", "", 2)]
    figures = measure(made, documents)
    x, y, both = figures.texts
    assert (x.label, x.bytes, x.words, x.tokens, x.documents, x.lossless) == ("x", 7, 3, 2, 2, 2)
    assert (y.label, y.bytes, y.words, y.tokens, y.lossless) == ("y", 5, 2, 3, 1)
    assert (both.label, both.bytes, both.tokens) == ("all", 12, 5)
    assert figures.words_per_token == {1: 4, 2: 1}  # two halves of ß, ' ab', 'ab'; and 'ab ab'
    assert (figures.vocabulary, figures.used) == (259, 5)
    assert figures.as_dict()["texts"][2]["bytes_per_token"] == 12 / 5


def test_a_tokenizer_that_loses_text_is_not_lossless():
    made = subject([])
    made.backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    assert measure(made, [Document(" a", "", "", 1), Document("a", "", "", 1)]).texts[0].lossless == 1


def test_tokens_without_a_way_to_them_are_unreachable():
    made = subject([("a", "b")], extra=("abc", "xy"))
    assert [made.vocab.text[index] for index in unreachable(made)] == ["abc", "xy"]
    made.backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("b", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    assert "ab" in [made.vocab.text[index] for index in unreachable(made)]


def test_overlap_counts_byte_strings():
    assert overlap(subject([("a", "b"), ("b", "c")]), subject([("a", "b"), ("c", "d")])) == 257


def test_borders_join_to_the_text():
    made = subject([("a", "b")])
    text = "ab ß第b"
    assert borders(made, text) == ["ab", " ", "ß", "第", "b"]


def test_the_value_of_supertokens_is_what_they_save():
    made = subject([("a", "b"), ("Ġ", "ab"), ("ab", "Ġab"), ("abĠab", "Ġab")])
    documents = [Document("ab ab ab", "", "", 1), Document("ab ab", "", "", 1), Document("ab ab", "", "", 1)]
    assert supertoken_value(made, documents) == [("ab ab", 2, 2), ("ab ab ab", 1, 2)]


def test_the_inventory_accounts_for_every_token():
    made = subject([("a", "b"), ("Ġ", "1"), ("Ã", "Ł")])
    found = inventory(made.vocab)
    assert sum(found["scripts"].values()) == 259
    assert found["scripts"]["parts of characters"] == 128
    assert sum(found["lengths"].values()) == 259 - 128


def invoke(*arguments: str):
    result = CliRunner().invoke(cli, ["-q", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_count_train_and_compare_end_to_end(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.txt").write_bytes(story(120, number).encode())
        invoke("count", tmp_path / f"{number}.txt", "--supertokens", "-o", tmp_path / f"{number}.parquet")
    both = tmp_path / "both.parquet"
    invoke("count", "--merge", tmp_path / "0.parquet", tmp_path / "1.parquet", "-o", both)
    options = ("--vocab-size", "420", "--supertokens", "two-stage", "--holdout-bytes", "0")
    invoke("train-tokenizer", "--counts", both, *options, "-o", tmp_path / "counts")
    output = invoke("train-tokenizer", tmp_path / "*.txt", *options, "-o", tmp_path / "text")
    assert "420 tokens" in output
    assert (tmp_path / "counts/tokenizer.json").read_bytes() == (tmp_path / "text/tokenizer.json").read_bytes()
    invoke("train-tokenizer", tmp_path / "0.txt", "--vocab-size", "400", "-o", tmp_path / "plain")
    compared = ("compare-tokenizers", tmp_path / "text", tmp_path / "plain", "--text", tmp_path / "*.txt")
    table = invoke(*compared)
    assert "bytes/token" in table
    assert "|" in table
    found = json.loads(invoke(*compared, "--json"))
    assert [item["texts"][-1]["label"] for item in found["tokenizers"]] == ["all", "all"]
    assert found["shared_byte_strings"][0][1] > 256
    assert "".join(found["sample"]["text"]) == "".join(found["sample"]["plain"])


def test_a_recipe_sets_what_the_command_line_leaves_open(tmp_path):
    (tmp_path / "a.txt").write_bytes(story(200).encode())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"corpora: ['{tmp_path}/a.txt']\nvocab-size: 410\nsupertokens: stochastic\n"
        "lengths: ['3-9=.5', '10=.5']\nseed: 4\n"
    )
    invoke("train-tokenizer", "--config", recipe, "-o", tmp_path / "out", "--seed", "7")
    manifest = json.loads((tmp_path / "out/tokenizer_training.json").read_text())
    chosen = manifest["options"]
    assert (chosen["vocab_size"], chosen["seed"], chosen["lengths"]) == (410, 7, ["3-9=.5", "10=.5"])
    assert manifest["vocabulary"] == 410


def test_bad_lines_are_counted_in_the_summary(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": story(200)}) + "\nnonsense\n")
    output = invoke(
        "train-tokenizer", tmp_path / "a.jsonl", "--on-error", "skip", "--vocab-size", "400", "-o", tmp_path / "o"
    )
    assert "Skipped: 1 x json" in output


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_signal_ends_the_trainer_at_once_and_leaves_nothing(tmp_path, sent, code):
    letters = [chr(97 + at) for at in range(26)]
    corpus = tmp_path / "a.txt"  # many different words: a training that lasts
    corpus.write_text(" ".join(a + b + c + d for a in letters for b in letters for c in letters for d in letters[:9]))
    command = [sys.executable, "-m", "tokenadapt", "-q", "train-tokenizer", str(corpus), "--vocab-size", "90000"]
    child = subprocess.Popen(
        [*command, "--min-frequency", "1", "-o", str(tmp_path / "out")], stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    trainer = _wait(lambda: _children(child.pid), 60)[0]
    child.send_signal(sent)
    child.communicate(timeout=30)
    assert child.returncode == code
    assert _wait(lambda: not os.path.exists(f"/proc/{trainer}"), 20)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.txt"}


def _children(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(parent)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "training.worker" in line]


def _wait(ready, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")
