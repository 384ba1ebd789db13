"""What the file system's refusals mean, and who can do something about them."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from peft_retraining.errors import InfrastructureError, PlatformError, RetrainingError
from training_contract.exit_codes import ExitCode

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Access(StrEnum):
    """What was being done with a path; the value is the permission it takes, in the words of ``ls -l``."""

    READ = "r (rx on directories)"
    WRITE = "rw (rwx on directories)"


@contextmanager
def storage_errors(path: Path, access: Access) -> Iterator[None]:
    """Turn every ``OSError`` of the block into an error that says what to do.

    Args:
        path: Named when the error itself names no path.
        access: What the block does there.

    Raises:
        RetrainingError: As ``storage_failure`` says.
    """
    try:
        yield
    except OSError as error:
        raise storage_failure(error, path, access) from error


def storage_failure(error: OSError, path: Path, access: Access) -> RetrainingError:
    """Explain an ``OSError``.

    Args:
        error: What the file system said.
        path: Named when the error itself names no path.
        access: What was being done.

    Returns:
        ``disk_full`` or ``adapter_storage_failed`` (a retry may help), ``adapter_storage_forbidden`` (it will not).
    """
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else path
    said = error.strerror or type(error).__name__
    evidence = {"path": str(place), "errno": errno.errorcode.get(error.errno or 0, str(error.errno))}
    if error.errno in _NO_SPACE:
        return InfrastructureError(
            f"no space is left at {place} ({said})",
            failure_code=ExitCode.DISK_FULL.failure_code,
            remedy=f"Free space or raise the quota on the file system of {path}; what was half written is swept later.",
            evidence=evidence,
        )
    if error.errno in _NO_PERMISSION:
        needed = "a file system mounted read-write" if error.errno == errno.EROFS else access.value
        return PlatformError(
            f"{_who()} may not use {place} ({said}): {_whose(place)}; needed: {needed}",
            failure_code="adapter_storage_forbidden",
            remedy=f"Give the worker's user or group {needed} on {path}, for example with chgrp and chmod g+rwxs.",
            evidence=evidence,
        )
    return InfrastructureError(
        f"the storage of adapters failed at {place}: {said}",
        failure_code="adapter_storage_failed",
        remedy=f"Look at the disk or the network mount that holds {path}; the task can be retried as it is.",
        evidence=evidence,
    )


def _who() -> str:
    return f"user {_name_of_user(os.geteuid())} (uid {os.geteuid()}, groups {sorted({os.getegid(), *os.getgroups()})})"


def _whose(place: Path) -> str:
    """Describe the owner of the nearest path that can be looked at: of one that is missing, its directory decides."""
    for path in (place, *place.parents):
        try:
            found = path.stat()
        except OSError:
            continue
        owner, group = _name_of_user(found.st_uid), _name_of_group(found.st_gid)
        return f"{path} belongs to {owner}:{group} with mode {stat.filemode(found.st_mode)}"
    return f"the owner of {place} cannot be seen"


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name_of_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
