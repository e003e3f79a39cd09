"""A folder appears whole or not at all: written beside its destination, synced, then put in place in one step.

Beside a destination NAME a run keeps `.NAME.tokenadapt-PID-RANDOM` (the folder being written), the same with `.lock`
(held by the run, so that others can tell a dead run from a live one) and, only where the file system cannot exchange
two folders in one step, `.old` (the folder being replaced). A lock file that is not empty says that the new folder is
complete and its exchange begun: whoever finds it without its holder finishes the exchange.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tokenadapt.errors import RequestError, TokenAdaptError
from tokenadapt.rename import exchange, rename_to_free

_LOCKS = os.name == "posix"  # Windows: leftovers are not told from live runs there, and stay
if _LOCKS:
    import fcntl

_LEFT = re.compile(r"(\.(.+)\.tokenadapt-\d+-[0-9a-f]{8})(\.lock|\.old)?$")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ENAMETOOLONG)


@contextmanager
def staged_folder(destination: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Give a staging folder beside `destination`; when the block ends without an error it becomes `destination`.

    `inputs` are the folders that the block reads: none may contain the destination or lie inside it. Raises
    RequestError where `destination` may not be written, TokenAdaptError where disk or permission fail; whatever is
    raised, `destination` is as it was. What dead runs left beside it is cleared.
    """
    check_destination(destination, overwrite=overwrite, inputs=inputs)
    destination = resolved(destination)
    made = _make_parents(destination.parent)
    try:
        with readable_errors(destination):
            sweep(destination.parent)
            with _Run.begin(destination) as run:
                yield run.staging
                _sync_tree(run.staging)
                run.commit(overwrite)
            _sync(destination.parent)
    except BaseException:
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        raise


def sweep(parent: Path) -> None:
    """Clear what dead runs of this user left in a folder, and finish an exchange that one of them began."""
    if not _LOCKS:
        return
    with suppress(FileNotFoundError):
        found = {match.group(1): match.group(2) for match in map(_LEFT.match, os.listdir(parent)) if match}
        for stem, name in sorted(found.items()):
            lock = _take_lock(parent / stem)
            if lock is not None:
                _Run(parent / name, parent / stem, lock).settle()


@contextmanager
def readable_errors(destination: Path) -> Iterator[None]:
    """Say in one sentence what a full disk or a missing permission means for `destination`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            where = destination if error.filename is None else error.filename
            raise TokenAdaptError(
                f"There is no room left to write {where} ({error.strerror}).", "Make room, or write to another disk."
            ) from error
        if error.errno in _FORBIDDEN and _beside(error, destination):
            raise TokenAdaptError(
                f"{destination} cannot be written ({error.strerror}: {error.filename}).",
                "Ask for write permission on its parent folder, or name another output.",
            ) from error
        raise


def resolved(path: Path) -> Path:
    """The real place of a folder by name: links among its parents are followed, the last part is not."""
    path = Path(os.path.abspath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def _beside(error: OSError, destination: Path) -> bool:
    return error.filename is not None and str(error.filename).startswith(str(destination.parent))


def check_destination(destination: Path, *, overwrite: bool = False, inputs: Iterable[Path] = ()) -> None:
    """Refuse at once what `staged_folder` would refuse; raises RequestError."""
    destination = resolved(destination)
    for given in inputs:
        used = Path(os.path.realpath(given))
        if used == destination or used == Path(os.path.realpath(destination)):
            raise RequestError(f"The output {destination} is the input itself.", "Name another output.")
        if used in destination.parents:
            raise RequestError(f"The output {destination} lies inside the input {used}.", "Name another output.")
        if destination in used.parents:
            raise RequestError(f"The input {used} lies inside the output {destination}.", "Name another output.")
    if destination.is_symlink():
        raise RequestError(f"The output {destination} is a link.", "Name the folder that it points at, or another.")
    if not destination.exists():
        return
    if not overwrite:
        raise RequestError(f"The output {destination} exists already.", "Name another output, or say --overwrite.")
    here, home = Path.cwd(), Path.home()
    precious = {here, *here.parents, home, *home.parents}
    if not destination.is_dir() or destination in precious or (destination / ".git").exists():
        raise RequestError(f"{destination} is no folder that a run may replace.", "Name another output.")


def _make_parents(parent: Path) -> list[Path]:
    """Make missing parents; gives them, innermost first, so that a failed run can remove them again."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TokenAdaptError(
            f"The folder {parent} cannot be made ({error.strerror}).", "Name another output, or ask for permission."
        ) from error
    return missing


@dataclass(frozen=True)
class _Run:
    """One run's names beside a destination, and its lock."""

    destination: Path
    staging: Path
    lock: int  # file descriptor, held while the run lives

    @staticmethod
    @contextmanager
    def begin(destination: Path) -> Iterator[_Run]:
        """Take a fresh name and its lock; whatever happens inside, nothing is left behind."""
        while True:
            name = f".{destination.name}.tokenadapt-{os.getpid()}-{secrets.token_hex(4)}"
            lock = _take_lock(destination.parent / name, new=True)
            if lock is not None:  # else another run swept between the making of the file and its locking
                break
        run = _Run(destination, destination.parent / name, lock)
        try:
            run.staging.mkdir()
            yield run
        finally:
            run.settle()

    @property
    def old(self) -> Path:
        """Where the replaced folder waits to be deleted, for file systems without an exchange."""
        return self.staging.with_name(self.staging.name + ".old")

    def commit(self, overwrite: bool) -> None:
        """Put the staging folder in place."""
        there = os.path.lexists(self.destination)
        if there and overwrite:
            if exchange(self.staging, self.destination):
                return
            os.write(self.lock, b"exchange")
            os.fsync(self.lock)
            _sync(self.staging.parent)
            with suppress(FileNotFoundError):  # another run is doing the same
                self.destination.rename(self.old)
            there = False
        if there or not rename_to_free(self.staging, self.destination):
            raise RequestError(f"The output {self.destination} appeared meanwhile.", "Name another output.")

    def settle(self) -> None:
        """Leave the destination whole, old or new, and nothing beside it."""
        if os.fstat(self.lock).st_size:
            for waiting in (self.staging, self.old):
                if not os.path.lexists(self.destination) and waiting.exists():
                    with suppress(OSError):
                        waiting.rename(self.destination)
                        _sync(self.destination.parent)
        for leftover in (self.old, self.staging):
            shutil.rmtree(leftover, ignore_errors=True)
        if not self.old.exists() and not self.staging.exists():
            with suppress(OSError):
                _lock_path(self.staging).unlink(missing_ok=True)
        os.close(self.lock)
        if not _LOCKS:  # Windows removes no open file
            with suppress(OSError):
                _lock_path(self.staging).unlink(missing_ok=True)


def _lock_path(stem: Path) -> Path:
    return stem.with_name(stem.name + ".lock")


def _take_lock(stem: Path, *, new: bool = False) -> int | None:
    """The held lock of a run as a file descriptor; None where it is another's, or was removed just now.

    A file system without locks gives `new` names only: leftovers stay there.
    """
    path = _lock_path(stem)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError:
        if new:
            raise
        return None
    try:
        if _LOCKS:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        own = os.fstat(handle)
        if os.path.samestat(own, path.stat()) and (not hasattr(os, "getuid") or own.st_uid == os.getuid()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        if new:
            return handle
    os.close(handle)
    return None


def _sync(path: Path) -> None:
    """Make a file or a folder's list of names survive a power cut; where the system cannot, it is no error."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            _sync(Path(root) / name)
        _sync(Path(root))
