"""What an installed package must hold, and what `tokenadapt --help` must not load.

Run: scripts/test tests/test_packaging.py
"""

import ast
import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tokenadapt

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "rich", "numpy", "tokenizers", "faiss", "scipy", "pyarrow", "huggingface_hub")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def quoted_list(name: str) -> list[str]:
    """A list of pyproject.toml, read without a TOML parser (Python 3.10 has none)."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return [str(item) for item in ast.literal_eval(found[1])]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(arguments):
    program = (
        "import sys\n"
        "from tokenadapt.cli import cli\n"
        f"cli.main({arguments!r}, standalone_mode=False)\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "eval-ppl" in done.stdout or tokenadapt.__version__ in done.stdout


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_pin_that_fits(python):
    here = {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    pinned: dict[str, list[str]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(here):
            (only,) = pin.specifier
            assert only.operator == "==", pin
            pinned.setdefault(canonicalize_name(pin.name), []).append(only.version)
    assert not {name: versions for name, versions in pinned.items() if len(versions) > 1}
    for line in [*quoted_list("dependencies"), *quoted_list("dev")]:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate(here):
            continue
        version = pinned[canonicalize_name(wanted.name)][0]
        assert wanted.specifier.contains(version), f"{line} against {version} on Python {python}"


def test_package_data_is_there():
    package = importlib.resources.files("tokenadapt")
    for name in ("py.typed", "pocket/model.safetensors", "pocket/tokenizer.json", "pocket/NOTICE"):
        assert package.joinpath(name).is_file(), name
    assert [entry.name for entry in package.joinpath("recipes").iterdir() if entry.name.endswith(".yaml")]


def test_sources_are_python_3_10():
    for path in [*(ROOT / "tokenadapt").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def test_version_stands_everywhere():
    version = tokenadapt.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version in changes[:2]  # below "Unreleased", if there is that


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
