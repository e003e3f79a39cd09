"""A folder is the old one or the new one, at any moment and however a run ends; nothing stays beside it."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenadapt import atomic, rename
from tokenadapt.atomic import staged_folder, sweep
from tokenadapt.errors import RequestError, TokenAdaptError

# Replaces one folder for ever; its two files always hold the same number.
ENDLESS = """
import signal, sys, itertools
from pathlib import Path
from tokenadapt import atomic
from tokenadapt.errors import Terminated
def end(*_): raise Terminated
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
if sys.argv[2] == "two-renames":
    atomic.exchange = lambda one, other: False
print("ready", flush=True)
for number in itertools.count():
    with atomic.staged_folder(Path(sys.argv[1]), overwrite=True) as staging:
        (staging / "a").write_text(str(number))
        (staging / "sub").mkdir()
        (staging / "sub" / "b").write_text(str(number))
"""


def fill(folder: Path, text: str) -> None:
    (folder / "a").write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub" / "b").write_text(text)


def content(folder: Path) -> str:
    """What a whole folder holds; fails on a mixture."""
    assert sorted(path.name for path in folder.iterdir()) == ["a", "sub"]
    text = (folder / "a").read_text()
    assert (folder / "sub" / "b").read_text() == text
    return text


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture
def out(tmp_path):
    with staged_folder(tmp_path / "out") as staging:
        fill(staging, "old")
    return tmp_path / "out"


@pytest.fixture(params=["exchange", "two-renames"])
def way(request, monkeypatch):
    if request.param == "two-renames":
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    return request.param


def start(out: Path, way: str) -> subprocess.Popen:
    child = subprocess.Popen([sys.executable, "-c", ENDLESS, str(out), way], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("kind", ["exchange", "two-renames"])
def test_kill_at_random_moments_leaves_old_or_new_and_the_next_run_clears(kind, out):
    rng, last = random.Random(7), -1
    for _ in range(8):
        child = start(out, kind)
        time.sleep(rng.uniform(0.002, 0.15))
        child.kill()
        child.wait()
        if kind == "exchange":
            content(out)  # whole before anyone repairs anything
        sweep(out.parent)
        text = content(out)
        assert names(out.parent) == ["out"]
        last = max(last, -1 if text == "old" else int(text))
    assert last >= 0  # the children did replace the folder


@pytest.mark.parametrize("kind", ["exchange", "two-renames"])
def test_two_runs_at_once_leave_one_whole_folder(kind, out):
    children = [start(out, kind) for _ in range(2)]
    time.sleep(0.3)
    for child in children:
        child.kill()
        child.wait()
    sweep(out.parent)
    assert content(out).isdigit()
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_leave_nothing_behind(number, out):
    for wait in (0.005, 0.02):
        child = start(out, "exchange")
        time.sleep(wait)
        child.send_signal(number)
        child.wait()
        content(out)
    sweep(out.parent)  # a second signal may come while cleaning up
    assert names(out.parent) == ["out"]


def test_overwrite_exchanges_whole_folders(way, out):
    (out / "stale").write_text("x")
    with staged_folder(out, overwrite=True) as staging:
        fill(staging, "new")
        assert (out / "stale").exists()
    assert content(out) == "new"
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(error, way, out):
    with pytest.raises(error), staged_folder(out, overwrite=True) as staging:  # noqa: PT012
        fill(staging, "new")
        raise error
    assert content(out) == "old"
    assert names(out.parent) == ["out"]


def test_a_failure_of_a_first_run_removes_the_parents_that_it_made(tmp_path):
    with pytest.raises(ValueError, match="no"), staged_folder(tmp_path / "x" / "y" / "out"):
        raise ValueError("no")
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_the_next_run_finishes_an_exchange_that_was_cut(step, out):
    """The three states in which a kill can leave two renames."""
    stem = out.parent / ".out.tokenadapt-99999999-0123abcd"
    lock, old = Path(f"{stem}.lock"), Path(f"{stem}.old")
    lock.write_text("exchange")
    if step == "after":
        out.rename(old)
        out.mkdir()
        fill(out, "new")
    else:
        stem.mkdir()
        fill(stem, "new")
        if step == "between":
            out.rename(old)
    sweep(out.parent)
    assert content(out) == ("old" if step == "before" else "new")
    assert names(out.parent) == ["out"]


def test_a_live_run_is_left_alone_and_a_dead_one_cleared(out):
    dead = out.parent / ".other.tokenadapt-99999999-0123abcd"
    dead.mkdir()
    (dead / "half").write_text("x")
    with staged_folder(out, overwrite=True) as staging:
        fill(staging, "new")
        code = "import sys; from pathlib import Path; from tokenadapt.atomic import sweep; sweep(Path(sys.argv[1]))"
        subprocess.run([sys.executable, "-c", code, str(out.parent)], check=True)
        assert staging.exists()
    assert not dead.exists()
    assert content(out) == "new"


def test_folders_of_others_are_not_ours_to_clear(out):
    kept = [".out.tokenadapt-x", ".tokenadapt-1-0123abcd", "out.tokenadapt-1-0123abcd", ".out.tokenadapt-1-0123abcde"]
    for name in kept:
        (out.parent / name).mkdir()
    sweep(out.parent)
    assert names(out.parent) == sorted([*kept, "out"])


def test_a_lock_that_is_a_link_is_not_followed(out, tmp_path):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / ".out.tokenadapt-1-0123abcd.lock").symlink_to(tmp_path / "precious")
    sweep(tmp_path)
    assert (tmp_path / "precious").read_text() == "keep"


def test_what_may_not_be_written_is_refused_before_anything_is_made(out, tmp_path, monkeypatch):
    link, file, inner = tmp_path / "link", tmp_path / "file", out / "sub" / "inner"
    link.symlink_to(out)
    file.write_text("x")
    cases = [
        (out, {}, "exists already"),
        (out, {"overwrite": True, "inputs": [link]}, "is the input itself"),
        (link, {"overwrite": True}, "is a link"),
        (link / "inner", {"inputs": [out]}, "inside the input"),
        (inner, {"inputs": [out]}, "inside the input"),
        (out, {"overwrite": True, "inputs": [inner]}, "lies inside the output"),
        (file, {"overwrite": True}, "no folder that a run may replace"),
        (Path.home(), {"overwrite": True}, "no folder that a run may replace"),
    ]
    before = names(tmp_path)
    for destination, options, message in cases:
        with pytest.raises(RequestError, match=message), staged_folder(destination, **options):
            pytest.fail("never reached")
    monkeypatch.chdir(out)
    with pytest.raises(RequestError, match="no folder"), staged_folder(Path("."), overwrite=True):
        pytest.fail("never reached")
    assert names(tmp_path) == before
    assert content(out) == "old"


def test_an_output_that_appears_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RequestError, match="appeared meanwhile"), staged_folder(out) as staging:  # noqa: PT012
        fill(staging, "new")
        out.mkdir()
        fill(out, "other")
    assert content(out) == "other"
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(out):
    """A limit on file size stands in for a full disk: the write itself fails, as it would there."""
    code = """
import resource, sys
from pathlib import Path
from tokenadapt.atomic import staged_folder
from tokenadapt.errors import TokenAdaptError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with staged_folder(Path(sys.argv[1]), overwrite=True) as staging:
        (staging / "big").write_bytes(bytes(1 << 20))
except TokenAdaptError as error:
    print(error.exit_code, error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("1 There is no room left")
    assert content(out) == "old"
    assert names(out.parent) == ["out"]


def test_no_space_while_putting_in_place(out, monkeypatch):
    def full(one, other):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic, "exchange", full)
    with pytest.raises(TokenAdaptError, match="no room left"), staged_folder(out, overwrite=True) as staging:
        fill(staging, "new")
    assert content(out) == "old"
    assert names(out.parent) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_a_missing_permission_is_one_sentence(tmp_path):
    code = """
import os, sys
from pathlib import Path
from tokenadapt.atomic import staged_folder
from tokenadapt.errors import TokenAdaptError
if os.geteuid() == 0:
    os.setuid(65534)
for path in sys.argv[1:]:
    try:
        with staged_folder(Path(path)):
            print("reached")
    except TokenAdaptError as error:
        print(error.exit_code, error)
"""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for folder in [tmp_path, *tmp_path.parents]:
        if "pytest-of" not in str(folder):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    command = [sys.executable, "-c", code, str(closed / "out"), str(closed / "x" / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("1 ") and "Permission denied" in line for line in lines)
    assert names(closed) == []


def test_renames_of_the_system(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "x").touch()
    (other / "y").touch()
    if rename.exchange(one, other):
        assert names(other) == ["x"]
    assert not rename.rename_to_free(one, other)
    assert rename.rename_to_free(one, tmp_path / "free")
    assert names(tmp_path) == ["free", "other"]


def test_where_the_system_has_no_such_renames(tmp_path, monkeypatch):
    monkeypatch.setattr(rename, "_call", lambda *_: errno.ENOSYS)
    test_renames_of_the_system(tmp_path)
    with staged_folder(tmp_path / "out") as staging:
        fill(staging, "old")
    with staged_folder(tmp_path / "out", overwrite=True) as staging:
        fill(staging, "new")
    assert content(tmp_path / "out") == "new"
    assert names(tmp_path) == ["free", "other", "out"]
