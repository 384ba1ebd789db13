"""From any exception to the cause that people and programs understand.

Comes in: whatever was raised, with its chain. Goes out: an exit code, a message, a remedy, and ``failure.json``. It
imports neither torch nor any other library, because failing to import them is one of the causes.
"""

from __future__ import annotations

import errno
import logging
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from peft_trainer.errors import TrainerError
from training_contract.documents import write_document
from training_contract.errors import ContractError
from training_contract.exit_codes import ExitCode
from training_contract.failure import MAX_MESSAGE_CHARACTERS, ExceptionEntry, FailureReport

logger = logging.getLogger(__name__)

_MAX_TRACEBACK_CHARACTERS: Final = 8000
_MAX_CHAIN: Final = 10
_FULL_BELOW_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a failure means.

    Attributes:
        exit_code: The cause.
        message: What was found, what was expected.
        remedy: What to do about it.
    """

    exit_code: ExitCode
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sign:
    """One way to recognise a cause in one link of an exception chain."""

    exit_code: ExitCode
    recognise: Callable[[BaseException, Path], bool]
    remedy: str


def diagnose(error: BaseException, *, directory: Path) -> Diagnosis:
    """Tell the cause of a failure from its exception chain.

    Args:
        error: What was raised.
        directory: Where the trainer writes; its free space and its path are evidence.
    """
    links = list(chain(error))
    if not isinstance(error, TrainerError):
        for sign in _SIGNS:
            for link in links:
                if sign.recognise(link, directory):
                    return Diagnosis(exit_code=sign.exit_code, message=_one_line(link), remedy=sign.remedy)
    for link in links:
        if isinstance(link, TrainerError):
            return Diagnosis(exit_code=link.exit_code, message=str(link), remedy=link.remedy)
    return Diagnosis(
        exit_code=ExitCode.INTERNAL_ERROR,
        message=_one_line(error),
        remedy="Read the exception chain in failure.json and the end of stderr.log; report it if it is ours.",
    )


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what caused it, root cause last."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen and len(seen) < _MAX_CHAIN:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that the GPU's or the host's memory did not suffice."""
    return _is_gpu_out_of_memory(error) or _is_host_out_of_memory(error)


def write_failure(
    file: Path, error: BaseException, diagnosis: Diagnosis, *, phase: str, memory: Mapping[str, int]
) -> None:
    """Write ``failure.json``; a disk that refuses is logged and does not hide the failure itself.

    Args:
        file: Where it goes.
        error: What was raised.
        diagnosis: What it means.
        phase: Where it happened.
        memory: Memory at that moment in bytes, by name.
    """
    report = FailureReport(
        exit_code=int(diagnosis.exit_code),
        failure_code=diagnosis.exit_code.failure_code,
        message=_clean(diagnosis.message)[:MAX_MESSAGE_CHARACTERS],
        remedy=diagnosis.remedy,
        phase=phase,
        failed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        exceptions=tuple(_entry(link) for link in chain(error)),
        memory=dict(memory),
    )
    try:
        write_document(file, report)
    except OSError as refusal:
        logger.error("%s cannot be written: %s", file, refusal)


def _entry(error: BaseException) -> ExceptionEntry:
    kind = type(error)
    text = "".join(traceback.format_exception(error, chain=False))
    return ExceptionEntry(
        type=kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}",
        message=_clean(str(error))[:MAX_MESSAGE_CHARACTERS],
        traceback=_clean(text)[-_MAX_TRACEBACK_CHARACTERS:],
    )


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _has_ancestor(error: BaseException, name: str, package: str) -> bool:
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(error).__mro__)


def _is_gpu_out_of_memory(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and (
        _has_ancestor(error, "OutOfMemoryError", "torch")
        or "CUDA out of memory" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )


def _is_host_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in text or "not enough memory" in text)


def _is_disk_full(error: BaseException, directory: Path) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    text = str(error)
    if any(words in text for words in ("No space left on device", "Disk quota exceeded", "StorageFull")):
        return True
    # torch says only that its writer failed; what the file system said is lost.
    return "inline_container" in text and _free_bytes(directory) < _FULL_BELOW_BYTES


def _free_bytes(directory: Path) -> int:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def _is_unwritable(error: BaseException, directory: Path) -> bool:
    if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
        return False
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str)]
    return any(Path(name).absolute().is_relative_to(directory.absolute()) for name in names)


_SIGNS: Final = (
    _Sign(
        exit_code=ExitCode.SPEC_INVALID,
        recognise=lambda error, directory: isinstance(error, ContractError),
        remedy="Let the Airflow side write the run directory anew, with the same release as the trainer's.",
    ),
    _Sign(
        exit_code=ExitCode.GPU_OUT_OF_MEMORY,
        recognise=lambda error, directory: _is_gpu_out_of_memory(error),
        remedy="Halve per_device_train_batch_size and double gradient_accumulation_steps, or lower max_length.",
    ),
    _Sign(
        exit_code=ExitCode.HOST_OUT_OF_MEMORY,
        recognise=lambda error, directory: _is_host_out_of_memory(error),
        remedy="Give the trainer more memory, or lower per_device_train_batch_size or max_length.",
    ),
    _Sign(
        exit_code=ExitCode.DISK_FULL,
        recognise=_is_disk_full,
        remedy="Free space, or raise the quota, where the run directories lie.",
    ),
    _Sign(
        exit_code=ExitCode.RUN_DIRECTORY_UNUSABLE,
        recognise=lambda error, directory: isinstance(error, OSError) and error.errno == errno.EFBIG,
        remedy="Raise the limit on file sizes (ulimit -f) of the trainer.",
    ),
    _Sign(
        exit_code=ExitCode.RUN_DIRECTORY_UNUSABLE,
        recognise=_is_unwritable,
        remedy="Let the trainer's user write there: owner, group, mode, and a mount that is not read-only.",
    ),
    _Sign(
        exit_code=ExitCode.DEPENDENCY_MISSING,
        recognise=lambda error, directory: isinstance(error, ImportError),
        remedy="Install the trainer's requirements again, in the versions of its lock file.",
    ),
)
