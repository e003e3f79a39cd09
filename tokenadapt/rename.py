"""Renames that Python does not offer: two names exchanged in one step, and a name taken only while it is free."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE = -100  # AT_FDCWD
_NOREPLACE, _EXCHANGE = 1, 2  # linux/fs.h
_MAC_SWAP, _MAC_EXCL = 2, 4  # sys/stdio.h
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)  # this kernel or file system has no such rename


def exchange(one: Path, other: Path) -> bool:
    """Exchange what two names stand for in one step; False where the system cannot, and nothing was done."""
    return _call(one, other, _EXCHANGE, _MAC_SWAP) is None


def rename_to_free(one: Path, other: Path) -> bool:
    """Rename a folder to a name that nothing has; False where something has it."""
    number = _call(one, other, _NOREPLACE, _MAC_EXCL)
    if number is None:
        return True
    if number == errno.EEXIST:
        return False
    try:
        one.rename(other)  # no such call: a folder replaces nothing but an empty folder
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True


def _call(one: Path, other: Path, linux: int, mac: int) -> int | None:
    """None where the rename was done, else the error number that says why the system cannot; raises other errors."""
    old, new = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            result = library.renamex_np(old, new, ctypes.c_uint(mac))
        else:
            result = library.renameat2(_HERE, old, _HERE, new, ctypes.c_uint(linux))
    except (AttributeError, OSError, TypeError):
        return errno.ENOSYS
    if result == 0:
        return None
    number = ctypes.get_errno()
    if number in (*_CANNOT, errno.EEXIST):
        return number
    raise OSError(number, os.strerror(number), str(one), None, str(other))
