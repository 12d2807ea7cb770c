"""Files of a run folder: replaced whole, and never through a symbolic link.

What lies below a run folder may have been put there by somebody else. A link there is refused, not followed: neither
read, nor written, nor deleted through. The run folder itself may be a link.
"""

import hashlib
import json
import logging
import os
import re
import stat
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from selfdistill.text import quote

_LOGGER = logging.getLogger(__name__)

SMALL_FILE = 2**28
"""Bytes that a record, a recipe or a description has at most."""

_ENDINGS = "csv|features|html|index|json|md|npz|onnx|pixels|probe|pt|pt2|safetensors|sha256|svg|yaml"
# O_NONBLOCK: of a FIFO one would wait for a writer; O_BINARY: Windows would translate line ends.
_NO_SURPRISES = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
POSIX = hasattr(os, "O_NOFOLLOW")
"""Whether open files can be renamed and deleted, and folders opened: not on Windows."""
_TEMPORARY = re.compile(rf"\..+\.({_ENDINGS})\.[a-z0-9_]{{4,32}}\.tmp")


def refuse_link(path: Path) -> Path:
    """Return the path.

    Raises:
        OSError: it is a symbolic link; one line.
    """
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link, which is not followed there: remove it")
    return path


def make_folder(path: Path) -> Path:
    """Make a folder below a run folder, and those above it; return the path.

    Raises:
        OSError: it is a symbolic link or a file, or cannot be made; one line.
    """
    try:
        refuse_link(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OSError(f"{path} is a file where a folder is needed: remove it") from None
    return path


def read_file(path: Path, most: int = SMALL_FILE) -> bytes:
    """Return what a file holds.

    Args:
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is a symbolic link, a device or too large, or cannot be read; one line.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        raise OSError(f"{path} has more than {most:,} bytes: it is not what its name says; remove it")
    return content


def parse_json(content: bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is not JSON, or names a key twice, of which one value would be dropped.
        RecursionError: it is nested too deeply.

    Example:
        >>> parse_json(b'{"lr": 0.1, "lr": 0.5}')
        Traceback (most recent call last):
        ValueError: 'lr' is given twice
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"{quote(next(name for name in names if names.count(name) > 1))} is given twice")
        return found

    return json.loads(content, object_pairs_hook=once)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read it; a symbolic link is not followed.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is a symbolic link or no regular file, or cannot be read.
    """
    return _open(path, os.O_RDONLY)


def open_lock(path: Path) -> BinaryIO:
    """Open a file to lock it; it is made if it is missing, and what it holds is left as it is.

    Raises:
        OSError: it is a symbolic link or no regular file, or cannot be made.
    """
    return _open(path, os.O_RDWR | os.O_CREAT)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the whole new one, also after a crash or on a full disk.

    A symbolic link of that name is replaced, not followed.

    Raises:
        OSError: the system refuses, in one line; no temporary file is left and the old file is untouched.
    """
    path = Path(path)
    try:
        _replace(path, content)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from None
    _LOGGER.debug("wrote %s, %s bytes", path, len(content))


def write_cache(path: Path, content: bytes) -> None:
    """Write a file that may be deleted at any time, behind a checksum; its folder is made.

    Warns:
        UserWarning: the system refuses, and what it holds will be made again.
    """
    try:
        make_folder(path.parent)
        write_atomically(path, hashlib.sha256(content).digest() + content)
    except OSError as error:
        warnings.warn(f"nothing is kept for later runs: {error}", stacklevel=4)


def read_cache(path: Path) -> bytes | None:
    """Return what :func:`write_cache` wrote; None if it is not there or damaged."""
    try:
        with open_file(path) as file:
            checksum, content = file.read(32), file.read()
    except FileNotFoundError:
        return None
    return content if hashlib.sha256(content).digest() == checksum else None


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of :func:`write_atomically` that a killed writer left; those still written stay."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for leftover in folder.iterdir():
        if _TEMPORARY.fullmatch(leftover.name):
            with suppress(OSError):
                with _open(leftover, os.O_RDWR) as file:
                    abandoned = lock(file)
                if abandoned:  # nobody takes up its name again
                    leftover.unlink()


def lock(file: BinaryIO, *, wait: bool = False, inherited: bool = True) -> bool:
    """Lock an open file until it is closed, also by the end of the process.

    Args:
        inherited: whether a forked process has the lock too, and keeps it when this one is killed. Where it is not,
            this process can lock the file twice.

    Returns:
        Whether it is locked; False: another has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows, where nothing is forked
        inherited = True
    if inherited:
        from filelock import lock_descriptor

        return lock_descriptor(file.fileno(), blocking=wait)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):  # the standard allows either
        return False
    return True


def close_to_move(file: BinaryIO) -> None:
    """Close a file that is to be renamed or deleted, where the system does not do so with an open one."""
    if not POSIX:
        file.close()


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return bytes of an open file; forked processes that share it do not disturb each other."""
    if POSIX:
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def _replace(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # the file system has no locks
                lock(file)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes files that nobody else may read
            close_to_move(file)
            Path(temporary).replace(path)  # still locked: a temporary file without a lock is a leftover
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    if POSIX:
        folder = os.open(path.parent, os.O_RDONLY)  # the rename itself is on the disk only once the folder is
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _open(path: Path, flags: int) -> BinaryIO:
    descriptor = os.open(refuse_link(path), flags | _NO_SURPRISES, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file: remove it")
    return os.fdopen(descriptor, "r+b" if flags & os.O_RDWR else "rb")
