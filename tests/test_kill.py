"""kill -9 of a whole transplant at random moments: the old checkpoint or the new one, and nothing beside it later."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import save_tiny

pytestmark = pytest.mark.slow


def transplant(model, tokenizer, out) -> list[str]:
    command = [sys.executable, "-m", "tokenadapt", "-q", "transplant", str(model), str(tokenizer), str(out)]
    return [*command, "--method", "pieces", "--verify", "tables", "--overwrite"]


def test_a_killed_transplant_leaves_the_old_checkpoint_or_the_new_one(tokenizers, tmp_path):
    rng, folder = random.Random(3), tmp_path / "work"
    folder.mkdir()
    for name in ("bytelevel-bpe", "unigram"):
        save_tiny(tmp_path / name, tokenizers[name])
    model, targets = tmp_path / "bytelevel-bpe", [tmp_path / "bytelevel-bpe", tmp_path / "unigram"]
    rows = {len(tokenizers[name]) for name in ("bytelevel-bpe", "unigram")}
    began = time.monotonic()
    subprocess.run(transplant(model, targets[0], folder / "out"), check=True)
    whole = time.monotonic() - began
    for number in range(8):
        child = subprocess.Popen(transplant(model, targets[number % 2], folder / "out"))
        time.sleep(rng.uniform(0.5, 1.1) * whole)
        child.send_signal(signal.SIGKILL)
        child.wait()
        config = json.loads((folder / "out" / "config.json").read_text())
        manifest = json.loads((folder / "out" / "transplant.json").read_text())
        assert config["vocab_size"] in rows
        assert sum(manifest["counts"].values()) == config["vocab_size"]
        verify = [sys.executable, "-m", "tokenadapt", "-q", "verify", str(folder / "out"), "--level", "files"]
        assert subprocess.run(verify, check=False).returncode == 0
    subprocess.run(transplant(model, targets[1], folder / "out"), check=True)
    assert os.listdir(folder) == ["out"]
