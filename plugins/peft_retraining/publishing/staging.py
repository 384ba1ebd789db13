"""An attempt's adapter directory becomes a copy of which every byte is vouched for.

Comes in: what the trainer left and the hashes in its result. Goes out: the same files under a name of ours, hashed
while they are copied, so that nobody can change them between the check and the copy.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from peft_retraining.errors import PlatformError
from peft_retraining.publishing.shared_files import make_shared_directory, write_new_file
from peft_retraining.publishing.storage_errors import Access, storage_errors
from training_contract.adapter_manifest import MANIFEST_NAME
from training_contract.result import FileEntry

_CHUNK_BYTES = 1024 * 1024
_SHOWN_PROBLEM_COUNT = 10


def check_file_names(files: Mapping[str, FileEntry], *, adapter: str) -> None:
    """Refuse names that would leave the adapter's directory or stand in the manifest's place.

    Args:
        files: What the result vouches for.
        adapter: Whose files they are, for the message.

    Raises:
        PlatformError: ``adapter_files_mismatch``.
    """
    problems = [f"{name[:80]!r} is not a path inside the adapter" for name in files if not _is_inner_path(name)]
    if not files:
        problems.append("the result names no file")
    if MANIFEST_NAME in files:
        problems.append(f"{MANIFEST_NAME} is the name of what publishing writes")
    _refuse(problems, adapter)


def copy_verified(source: Path, target: Path, files: Mapping[str, FileEntry]) -> None:
    """Copy an adapter's files, checking each against its hash on the way.

    Args:
        source: The attempt's adapter directory; it holds these files and no others, and no links.
        target: An existing, empty directory.
        files: Hash and size by path inside the adapter; names have passed ``check_file_names``.

    Raises:
        PlatformError: ``adapter_files_mismatch``: these are not the files that the trainer finished.
        OSError: The target cannot be written.
    """
    with storage_errors(source, Access.READ):
        problems = _compare_names(source, files)
    _refuse(problems, str(source))
    for name, entry in sorted(files.items()):
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            make_shared_directory(target / parent)
        digest = hashlib.sha256()
        write_new_file(target / name, _read_chunks(source / name, digest))
        if digest.hexdigest() != entry.sha256:
            problems.append(f"{name} has SHA-256 {digest.hexdigest()}, expected {entry.sha256}")
    _refuse(problems, str(source))


def _is_inner_path(name: str) -> bool:
    path = PurePosixPath(name)
    plain = str(path) == name and name != "." and name.isprintable()
    return plain and not path.is_absolute() and ".." not in path.parts


def _compare_names(source: Path, files: Mapping[str, FileEntry]) -> list[str]:
    """List what is missing, of another size, not vouched for, or not a plain file."""
    if source.is_symlink() or not source.is_dir():
        return ["it is not a directory"]
    problems = []
    found: dict[str, os.stat_result] = {}
    for path in _walk(source):
        name = path.relative_to(source).as_posix()
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            found[name] = status
        elif not stat.S_ISDIR(status.st_mode):
            problems.append(f"{name} is neither a file nor a directory (links are not followed)")
    for name, entry in sorted(files.items()):
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].st_size != entry.size_bytes:
            problems.append(f"{name} has {found[name].st_size} bytes, expected {entry.size_bytes}")
    return problems + [f"{name} is not in the result" for name in sorted(found.keys() - files.keys())]


def _walk(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)


def _read_chunks(path: Path, digest: hashlib._Hash) -> Iterator[bytes]:
    with storage_errors(path, Access.READ):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                yield chunk


def _refuse(problems: list[str], adapter: str) -> None:
    if not problems:
        return
    shown = "; ".join(problems[:_SHOWN_PROBLEM_COUNT])
    more = f"; and {len(problems) - _SHOWN_PROBLEM_COUNT} more" if len(problems) > _SHOWN_PROBLEM_COUNT else ""
    raise PlatformError(
        f"the files of {adapter} are not those that its result vouches for: {shown}{more}",
        failure_code="adapter_files_mismatch",
        remedy="Find out who changed the run directory after training ended, then clear train_adapter to train again.",
        evidence={"problems": problems[:_SHOWN_PROBLEM_COUNT], "problem_count": len(problems)},
    )
