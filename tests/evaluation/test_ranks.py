"""Two processes that share one run give the numbers of one, and a lost one ends the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from tokenadapt.cli import cli
from tokenadapt.errors import RequestError
from tokenadapt.evaluation import ranks

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENADAPT_RANK_MINUTES": "1"}


def launched(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    line = [*TORCHRUN, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, env=ENVIRONMENT | more)


def test_two_processes_give_the_numbers_of_one(checkpoint, other, texts):
    words = ("eval-ppl", checkpoint, other, "-d", texts, "--json", "--documents", "paragraph", "--batch-tokens", 64)
    one, two = CliRunner().invoke(cli, [str(word) for word in words]), launched("-m", "tokenadapt", *words)
    assert two.returncode == 0, two.stderr
    first, second = json.loads(one.stdout), json.loads(two.stdout)
    for single, shared in zip(first["models"], second["models"], strict=True):
        assert shared["bits_per_byte"] == pytest.approx(single["bits_per_byte"], rel=1e-6)
        assert shared["where"]["bytes"]["letter"]["bits"] == pytest.approx(single["where"]["bytes"]["letter"]["bits"])
    assert second["corpus"] == first["corpus"]


DYING = """
import os, sys
from tokenadapt.evaluation import head
original, seen = head.Scorer.bits, []
def bits(scorer, batch, targets):
    seen.append(1)
    if os.environ["RANK"] == "1" and len(seen) == 2:
        {death}
    return original(scorer, batch, targets)
head.Scorer.bits = bits
from tokenadapt.cli import main
main()
"""


@pytest.mark.parametrize(
    ("death", "said"),
    [
        ("os._exit(9)", "exitcode"),  # torchrun's own account, whichever of the two notices first
        pytest.param("raise RuntimeError('a bug')", "RuntimeError: a bug", marks=pytest.mark.slow),
        pytest.param(
            "raise head.TokenAdaptError('The disk is on fire.')",
            "Process 1 of 2 failed: The disk is on fire.",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["killed", "crashed", "failed"],
)
def test_a_dead_process_ends_the_run_with_a_message(checkpoint, texts, tmp_path, death, said):
    script = tmp_path / "dying.py"
    script.write_text(DYING.format(death=death))
    words = ("eval-ppl", checkpoint, "-d", texts, "--documents", "paragraph", "--batch-tokens", 4)
    done = launched(script, *words)
    assert done.returncode != 0
    assert "was lost" in done.stderr or "SIGTERM" in done.stderr or "failed" in done.stderr
    assert said in done.stderr
    assert not done.stdout


def test_standard_input_is_not_shared(checkpoint, monkeypatch):
    monkeypatch.setattr(ranks, "joined", lambda: nullcontext(ranks.Ranks(0, 2)))
    done = CliRunner().invoke(cli, ["eval-ppl", str(checkpoint), "-d", "-"])
    assert "Standard input cannot be shared" in str(done.exception)


def test_a_half_set_environment_is_refused(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RequestError, match="no RANK, MASTER_ADDR, MASTER_PORT"), ranks.joined():
        pass
