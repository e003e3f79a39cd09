"""A push is whole or fails, is private unless asked otherwise, and uses the stored login: against a local stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoint.stand_in import running_hub

# The client reads its endpoint once, at import: each push is a process of its own.
PUSH = """
import json, sys
from pathlib import Path
from tokenadapt.checkpoint.hub import push_folder
from tokenadapt.errors import TokenAdaptError
try:
    print(push_folder(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3])))
except TokenAdaptError as error:
    print(error.message, error.hint, sep="\\n")
    sys.exit(error.exit_code)
"""
REPO = "someone/model"


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "out"
    made.mkdir()
    (made / "config.json").write_text("{}")
    (made / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    (made / "model-00001-of-00002.safetensors").write_bytes(bytes(range(256)) * 9)
    (made / "model-00002-of-00002.safetensors").write_bytes(b"x" * 99)
    return made


def push(hub, folder: Path, repo: str = REPO, *, login: bool = True, **options) -> subprocess.CompletedProcess:
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    if login:
        (home / "token").write_text("hf_stored")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    given = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment = {**kept, **given, **options.pop("environment", {})}
    command = [sys.executable, "-c", PUSH, str(folder), repo, json.dumps(options)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root, check=False)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_push_is_private_whole_and_one_commit(hub, folder):
    done = push(hub, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == f"{hub.url}/{REPO}/commit/{'0' * 40}"
    assert hub.repos[REPO] == {"private": True, "files": content(folder)}
    assert hub.commits == 1
    assert "Bearer hf_stored" in hub.tokens


def test_a_second_push_leaves_no_stale_file(hub, folder):
    old = {"model.safetensors": b"old", "special_tokens_map.json": b"{}", "notes.md": b"kept", "sub/x.json": b"kept"}
    hub.repos[REPO] = {"private": True, "files": old}
    assert push(hub, folder).returncode == 0
    assert hub.repos[REPO]["files"] == {**content(folder), "notes.md": b"kept", "sub/x.json": b"kept"}
    assert hub.commits == 1


def test_a_public_repository_takes_only_a_public_push(hub, folder):
    hub.repos[REPO] = {"private": False, "files": {}}
    done = push(hub, folder)
    assert done.returncode == 2
    assert done.stdout.startswith(f"The repository {REPO} is public.")
    assert hub.repos[REPO]["files"] == {}
    assert push(hub, folder, private=False).returncode == 0
    assert hub.repos[REPO] == {"private": False, "files": content(folder)}


@pytest.mark.parametrize("step", ["info", "create", "preupload", "batch", "upload", "commit"])
def test_a_push_that_fails_anywhere_fails_the_command(step, hub, folder):
    hub.fail = step
    before = content(folder)
    done = push(hub, folder)
    assert done.returncode == 1
    message, hint = done.stdout.splitlines()
    assert message.startswith(f"The push of {folder} to {REPO} failed (")
    assert hint.endswith(f"hf upload {REPO} {folder} --private.")
    assert hub.commits == 0
    assert content(folder) == before


def test_an_unreachable_hub_is_one_sentence(hub, folder):
    done = push(hub, folder, environment={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert done.stdout.startswith(f"The push of {folder} to {REPO} failed (")
    assert "Traceback" not in done.stderr


def test_what_cannot_begin_is_refused(hub, folder, tmp_path):
    cases = {
        "No login is stored": push(hub, folder, login=False),
        "is no name of a Hub repository": push(hub, folder, "a/b/c"),
        "HF_HUB_OFFLINE forbids": push(hub, folder, environment={"HF_HUB_OFFLINE": "1"}),
        "holds nothing to push": push(hub, tmp_path / "none"),
    }
    for message, done in cases.items():
        assert done.returncode == 2, done.stdout + done.stderr
        assert message in done.stdout
    assert hub.repos == {}
