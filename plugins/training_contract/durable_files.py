"""Files and directories that are either there, whole and durable, or not there.

The order is always the same: write under a temporary name in the same directory, flush to the disk, rename, flush the
directory. A crash at any point leaves the old state or the new one; temporary names start with ``.tmp-`` so that a
later run can tell and sweep them.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
_CHUNK_BYTES = 1024 * 1024


def temporary_name(path: Path) -> Path:
    """Name a temporary neighbour of ``path`` that nobody else uses."""
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or all of the new one, also after a power cut.

    Raises:
        OSError: The file system refuses; no temporary file is left behind.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: The directory cannot be opened or flushed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(root: Path) -> None:
    """Make every file and name below ``root`` durable, deepest first.

    Raises:
        OSError: Something below cannot be opened or flushed.
    """
    for directory, _, names in os.walk(root, topdown=False, onerror=_raise):
        for name in names:
            with (Path(directory) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        flush_directory(Path(directory))


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _raise(error: OSError) -> None:
    """Make ``os.walk`` stop at a directory it cannot list, which it would leave out, unflushed."""
    raise error
