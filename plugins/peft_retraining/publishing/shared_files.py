"""Directories, files and a lock that belong to owner and group, whatever the process's umask, and to nobody else."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from peft_retraining.errors import InfrastructureError, PlatformError
from training_contract.locations import DIRECTORY_MODE

FILE_MODE = 0o660
"""Adapters can give away what they were trained on: owner and group only."""

_LOCK_POLL_SECONDS = 0.2
_LOCKING_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


def is_there(path: Path) -> bool:
    """Tell whether there is anything at a path, links not followed.

    Raises:
        OSError: The file system cannot say; ``os.path.lexists`` would take that for a no.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def make_shared_directory(directory: Path) -> None:
    """Create a directory for owner and group; one that is there keeps the permissions that somebody gave it.

    Raises:
        OSError: The file system refuses.
    """
    try:
        directory.mkdir(mode=DIRECTORY_MODE)
    except FileExistsError:
        return
    directory.chmod(DIRECTORY_MODE)  # mkdir(2) knows no set-group-id bit, and the umask takes others


def write_new_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that does not exist yet; it is not flushed to the disk.

    Raises:
        OSError: The file system refuses, or the file exists.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, FILE_MODE)
        for chunk in chunks:
            stream.write(chunk)


@contextmanager
def exclusive_lock(
    path: Path, *, timeout_seconds: float, monotonic: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[None]:
    """Hold a lock that no other process holds; it is free again when its holder ends, however it ends.

    Args:
        path: The lock's file; created when missing, never removed.
        timeout_seconds: How long to wait for another holder.
        monotonic: A clock, in seconds.
        sleep: Waits that many seconds.

    Raises:
        InfrastructureError: ``adapter_store_locked``: it stayed taken.
        PlatformError: ``adapter_store_cannot_lock``: the file system has no locks.
        OSError: The lock's file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchmod(descriptor, FILE_MODE)
        deadline = monotonic() + timeout_seconds
        while not _lock(descriptor, path):
            if monotonic() >= deadline:
                raise InfrastructureError(
                    f"another publisher has held {path} for more than {timeout_seconds:g} s",
                    failure_code="adapter_store_locked",
                    remedy=f"Retry when it is done; `fuser -v {path}` names it on the host where it runs.",
                    evidence={"path": str(path), "timeout_seconds": timeout_seconds},
                )
            sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _LOCKING_UNSUPPORTED:
            raise
        raise PlatformError(
            f"the file system of {path} has no file locks ({error.strerror}); two publishers could not be kept apart",
            failure_code="adapter_store_cannot_lock",
            remedy="Put adapters_directory on a file system with flock, for example a local disk or NFS 4.",
            evidence={"path": str(path)},
        ) from error
    return True
