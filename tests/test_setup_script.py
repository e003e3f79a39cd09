"""scripts/setup, with stand-ins for Python and pip: what it says when it cannot, and that it works once only.

Run: scripts/test tests/test_setup_script.py
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="a shell script")

# says it is new enough; makes an environment of itself; keeps a list of what pip was asked
GOOD = """#!/usr/bin/env bash
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip "*) echo "$*" >>pip-calls; echo "Collecting torch"; exit "${PIP_FAILS:-0}" ;;
    "-VV") echo "Python 3.99" ;;
esac
"""
OLD = "#!/usr/bin/env bash\nexit 1\n"
WITHOUT_VENV = '#!/usr/bin/env bash\n[[ "$*" != "-m venv"* ]]\n'


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    return tmp_path


def setup(checkout, python, *arguments, **variables):
    stand_in = checkout / "python"
    stand_in.write_text(python, encoding="utf-8")
    stand_in.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stand_in), **variables}
    command = ["bash", "scripts/setup", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def calls(checkout):
    log = checkout / "pip-calls"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def test_it_installs_once_and_again_when_a_pin_changes(checkout):
    for _ in range(2):
        done = setup(checkout, GOOD, "dev")
        assert done.returncode == 0, done.stderr
    assert len(calls(checkout)) == 1
    assert calls(checkout)[0].endswith("-c constraints.txt -e .[dev]")
    assert setup(checkout, GOOD).stderr == ""  # the development set-up serves everything else
    (checkout / "constraints.txt").write_text("new==2", encoding="utf-8")
    setup(checkout, GOOD)
    assert [call.rsplit(" ", 1)[1] for call in calls(checkout)] == [".[dev]", "."]


def test_a_failed_installation_is_tried_again(checkout):
    failed = setup(checkout, GOOD, PIP_FAILS="1")
    assert failed.returncode == 1
    assert "Hint: pip needs the network" in failed.stderr
    assert "Collecting torch" in failed.stderr
    assert setup(checkout, GOOD).returncode == 0
    assert len(calls(checkout)) == 2


def test_an_old_python_is_refused(checkout):
    done = setup(checkout, OLD)
    assert done.returncode == 2
    assert "Python 3.10 or newer was not found" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_missing_venv_module_is_explained(checkout):
    done = setup(checkout, WITHOUT_VENV)
    assert done.returncode == 1
    assert "python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()
