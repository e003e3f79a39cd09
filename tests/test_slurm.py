"""The sbatch files' own command lines, on `pocket`, without a scheduler.

Run: scripts/test tests/test_slurm.py
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SLURM = Path(__file__).parent.parent / "scripts" / "slurm"
SCRIPTS = sorted(path.name for path in SLURM.glob("*.sbatch"))
TEXT = "".join(f"def area_{n}(width, height):\n    return width * height + {n}\n\n" for n in range(200))

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="sbatch files are shell scripts")


def submit(script: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "COV_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    environment = {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(
        ["bash", str(SLURM / script)], env=environment, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_missing_variable_is_named(script):
    done = submit(script)
    assert done.returncode != 0
    assert "name " in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_sigterm_comes_before_the_time_limit(script):
    text = (SLURM / script).read_text(encoding="utf-8")
    assert "#SBATCH --signal=B:TERM@60" in text
    assert "\nexec " in text  # so that the signal reaches the command, not a waiting shell


def test_train_transplant_evaluate(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    out = tmp_path / "tokenizers"
    done = submit(
        "train.sbatch", CORPUS=str(text), SIZES="300 320", OUT=str(out), SLURM_ARRAY_TASK_ID="1", OPTIONS="--seed 3"
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["320"]

    moved = tmp_path / "moved"
    options = {"MODELS": "pocket", "TOKENIZERS": str(out / "320"), "OUT": str(moved), "OPTIONS": "--method pieces"}
    done = submit("transplant.sbatch", **options, GPUS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote ") == 1  # two processes encode, one writes
    (checkpoint,) = moved.iterdir()
    assert json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["vocab_size"] == 320

    figures = tmp_path / "figures"
    for gpus in ("1", "2"):  # two: through torchrun, on CPU
        models = {"MODELS": f"pocket {checkpoint}", "TEXTS": str(text), "OUT": str(figures / gpus), "GPUS": gpus}
        done = submit("evaluate.sbatch", **models, SLURM_ARRAY_TASK_ID="1", OPTIONS="--limit-bytes 3000")
        assert done.returncode == 0, done.stderr
    alone, shared = (json.loads(next((figures / gpus).iterdir()).read_text(encoding="utf-8")) for gpus in "12")
    assert alone["models"][0]["bits_per_byte"] == pytest.approx(shared["models"][0]["bits_per_byte"], rel=1e-6)
