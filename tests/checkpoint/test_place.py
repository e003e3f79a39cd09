"""Bytes move by whichever way the system has, and are the same by each."""

from __future__ import annotations

import errno
import os

import pytest

from tokenadapt.checkpoint import place
from tokenadapt.checkpoint.place import blob_digest, copy_file, copy_range, digest_range, share_file
from tokenadapt.errors import TokenAdaptError

DATA = bytes(range(256)) * 40


def unable(number):
    def call(*args, **options):
        raise OSError(number, os.strerror(number))

    return call


def one_by_one(source, target, count, offset_src):
    """A system that copies less than it was asked for."""
    return os.write(target, os.pread(source, min(count, 1000), offset_src))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("system", ["as it is", "short", errno.EXDEV, errno.ENOSYS, "without"])
def test_ranges_are_appended_in_order(system, source, tmp_path, monkeypatch):
    if system == "without":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif system != "as it is":
        call = one_by_one if system == "short" else unable(system)
        monkeypatch.setattr(os, "copy_file_range", call, raising=False)
    moved = []
    with source.open("rb") as old, (tmp_path / "new").open("wb") as new:
        new.write(b"head")
        copy_range(old, new, 7, 5000, moved.append)
        new.write(b"between")
        copy_range(old, new, 0, 3, moved.append)
    assert (tmp_path / "new").read_bytes() == b"head" + DATA[7:5007] + b"between" + DATA[:3]
    assert sum(moved) == 5003


def test_other_errors_are_not_hidden(source, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", unable(errno.ENOSPC), raising=False)
    with pytest.raises(OSError, match="No space left"):
        copy_file(source, tmp_path / "new", lambda amount: None)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(source, tmp_path):
    with source.open("rb") as old, (tmp_path / "new").open("wb") as new, pytest.raises(OSError, match="ended before"):
        copy_range(old, new, 0, len(DATA) + 1, lambda amount: None)
    with pytest.raises(TokenAdaptError, match="ended early"):
        digest_range(source, 5, len(DATA))


@pytest.mark.parametrize("reflink", [False, True])
def test_sharing_never_makes_a_symbolic_link(reflink, source, tmp_path, monkeypatch):
    def pretend(old, new):
        new.write_bytes(old.read_bytes())
        return True

    monkeypatch.setattr(place, "_reflink", pretend if reflink else lambda old, new: False)
    (tmp_path / "link").symlink_to(source)
    assert share_file(tmp_path / "link", tmp_path / "new") == ("reflinked" if reflink else "linked")
    assert not (tmp_path / "new").is_symlink()
    assert (tmp_path / "new").read_bytes() == DATA
    assert os.path.samefile(source, tmp_path / "new") != reflink


def test_nothing_is_shared_across_file_systems(source, tmp_path, monkeypatch):
    monkeypatch.setattr(place, "_reflink", lambda old, new: False)
    monkeypatch.setattr(os, "link", unable(errno.EXDEV))
    assert share_file(source, tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


def test_only_a_blob_of_a_cache_is_known_by_its_name(source, tmp_path):
    digest = digest_range(source, 0, len(DATA))
    (tmp_path / "blobs").mkdir()
    blob = source.rename(tmp_path / "blobs" / digest)
    (tmp_path / "link").symlink_to(blob)
    assert blob_digest(tmp_path / "link") == blob_digest(blob) == digest
    assert blob_digest(blob.rename(tmp_path / digest)) is None
    assert blob_digest(tmp_path / "blobs" / "0123abcd") is None
