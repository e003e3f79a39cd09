"""Bytes that do not change: whole files shared with the source where that is safe, byte ranges copied by the kernel."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO, Literal

from tokenadapt.errors import TokenAdaptError
from tokenadapt.progress import Advance

Placed = Literal["reflinked", "linked", "copied"]
_FICLONE = 0x40049409  # Linux: share the blocks of a whole file, copied when either side is written
_CHUNK = 64 << 20


def share_file(source: Path, target: Path) -> Literal["reflinked", "linked"] | None:
    """Make `target` hold what `source` holds without copying, where that is safe; None where it is not.

    A reflink shares blocks until either side is written. A hard link shares the bytes themselves for ever: taken only
    from an ordinary folder on the same file system, never from a Hub cache, which other projects read. A symbolic
    link is never made: its target may vanish.
    """
    source = Path(os.path.realpath(source))
    if _reflink(source, target):
        return "reflinked"
    return "linked" if blob_digest(source) is None and _hard_link(source, target) else None


def copy_file(source: Path, target: Path, advance: Advance) -> None:
    """A real copy of a whole file."""
    with source.open("rb") as old, target.open("xb") as new:
        copy_range(old, new, 0, source.stat().st_size, advance)


def blob_digest(path: Path) -> str | None:
    """The sha256 that a Hub cache already gives a large file: its blob is named by it."""
    real = Path(os.path.realpath(path))
    return real.name if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name) else None


def _reflink(source: Path, target: Path) -> bool:
    try:
        import fcntl

        with source.open("rb") as old, target.open("xb") as new:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        return True
    except (ImportError, OSError):
        target.unlink(missing_ok=True)
        return False


def _hard_link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
        return True
    except OSError:
        return False


def copy_range(source: BinaryIO, target: BinaryIO, offset: int, count: int, advance: Advance) -> None:
    """Append `count` bytes of `source` from `offset` to `target`, inside the kernel where it can."""
    target.flush()
    in_kernel = hasattr(os, "copy_file_range")
    while count:
        step = min(count, _CHUNK)
        done = _kernel_copy(source, target, offset, step) if in_kernel else None
        if done is None:
            in_kernel = False
            source.seek(offset)
            data = source.read(step)
            target.write(data)
            done = len(data)
        if done == 0:
            raise OSError(errno.EIO, f"{source.name} ended before its tensors did")
        offset, count = offset + done, count - done
        advance(done)
    target.flush()


def _kernel_copy(source: BinaryIO, target: BinaryIO, offset: int, count: int) -> int | None:
    """Bytes copied at the target's own position, or None where this pair of files cannot be copied so."""
    try:
        return os.copy_file_range(source.fileno(), target.fileno(), count, offset_src=offset)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            return None
        raise


def digest_range(path: Path, offset: int, nbytes: int) -> str:
    """Sha256 of a part of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while nbytes:
            part = file.read(min(nbytes, 8 << 20))
            if not part:
                raise TokenAdaptError(f"{path} ended early.", "It changed while it was read: run again.")
            digest.update(part)
            nbytes -= len(part)
    return digest.hexdigest()
