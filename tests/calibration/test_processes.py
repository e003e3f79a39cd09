"""Two processes compute what one does; a process that is killed loses at most one interval of saving."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.calibration.test_commands import FEW, run
from tests.calibration.test_run import tables
from tokenadapt.calibration.state import Desk

ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def command(swap, corpus, out, *more, every=2):
    base = [
        "-m",
        "tokenadapt",
        "-q",
        "calibrate",
        swap[1],
        "-d",
        corpus,
        "-o",
        out,
        "--verify",
        "tables",
        "--every",
        every,
    ]
    return [str(part) for part in (*base, *FEW, *more)]


def test_two_processes_equal_one(tied_swap, corpus, tmp_path):
    wanted = ["--steps", "3", "--objective", "hidden=1,bytes=1,text=1"]
    run(*command(tied_swap, corpus, tmp_path / "one", *wanted)[2:])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, *command(tied_swap, corpus, tmp_path / "two", *wanted)], check=True, env=ALONE)
    one, two = tables(tmp_path / "one"), tables(tmp_path / "two")
    for name, table in one.items():
        assert torch.allclose(table, two[name], rtol=1e-5, atol=1e-5)
        assert float((table - tables(tied_swap[1])[name]).abs().max()) > 1e-3


@pytest.mark.slow
def test_kill_loses_at_most_one_interval(tied_swap, corpus, tmp_path):
    wanted = ["--steps", "30", "--no-closed-form"]
    whole = command(tied_swap, corpus, tmp_path / "whole", *wanted)
    subprocess.run([sys.executable, *whole], check=True, env=ALONE)
    out, log = tmp_path / "cut", tmp_path / "log.jsonl"
    going = [sys.executable, *command(tied_swap, corpus, out, *wanted, "--log", log)]
    child = subprocess.Popen(going, env=ALONE)
    while not log.exists() or len(log.read_text().splitlines()) < 4:
        time.sleep(0.01)
        assert child.poll() is None
    reached = (len(log.read_text().splitlines()) - 1) * 2
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not out.exists()
    state = Desk.of(out).load()
    assert state is not None
    assert state.step >= reached - 2
    subprocess.run([*going, "--resume"], check=True, env=ALONE)
    for name, table in tables(tmp_path / "whole").items():
        assert torch.equal(table, tables(out)[name])
