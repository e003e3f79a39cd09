"""The script that sets saved runs beside each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.evaluation.test_result import made
from tokenadapt.evaluation.saved import save

SCRIPT = Path(__file__).parents[2] / "scripts" / "eval_table.py"


def test_saved_runs_make_one_table_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    save(made([7.0, 4, 0, 4]), tmp_path / "base.json")
    save(made([14.0, 8, 0, 2]), tmp_path / "moved.json")
    runs = [tmp_path / "base.json", tmp_path / "moved.json"]
    line = [sys.executable, SCRIPT, *runs, "--picture", tmp_path / "excess.svg"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "| all | 1.000 | 1.600 | +0.600 |" in done.stdout
    assert (tmp_path / "excess.svg").read_text().startswith("<?xml")
