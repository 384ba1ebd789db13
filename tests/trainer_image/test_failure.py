"""Every exception becomes a cause, a message and a remedy; one table."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from peft_trainer.errors import AdapterSettingsInvalid, ModelNotFound, Stopped, TrainingDiverged
from peft_trainer.failure import Diagnosis, chain, diagnose, write_failure
from training_contract.documents import read_document
from training_contract.errors import DocumentUnreadable
from training_contract.exit_codes import ExitCode
from training_contract.failure import MAX_MESSAGE_CHARACTERS, FailureReport

RUN = Path("/runs/0123456789abcdef")


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


def os_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def raised_by_torch() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2**44)
    return caught.value


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        pytest.param(ModelNotFound("none", remedy="check"), ExitCode.MODEL_NOT_FOUND, id="our-own"),
        pytest.param(
            caused(AdapterSettingsInvalid("r", remedy="check"), ImportError("x")),
            ExitCode.ADAPTER_SETTINGS_INVALID,
            id="our-own-with-another-cause",
        ),
        pytest.param(
            caused(RuntimeError("wrapped"), TrainingDiverged("nan", remedy="lower")),
            ExitCode.TRAINING_DIVERGED,
            id="our-own-wrapped-by-a-library",
        ),
        pytest.param(Stopped("stop", remedy="again"), ExitCode.STOPPED, id="stopped"),
        pytest.param(DocumentUnreadable(document="spec.json", problem="x"), ExitCode.SPEC_INVALID, id="contract"),
        pytest.param(torch.cuda.OutOfMemoryError("CUDA out of memory"), ExitCode.GPU_OUT_OF_MEMORY, id="gpu-oom"),
        pytest.param(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), ExitCode.GPU_OUT_OF_MEMORY, id="cublas"),
        pytest.param(MemoryError(), ExitCode.HOST_OUT_OF_MEMORY, id="memory-error"),
        pytest.param(os_error(errno.ENOMEM), ExitCode.HOST_OUT_OF_MEMORY, id="enomem"),
        pytest.param(os_error(errno.ENOSPC), ExitCode.DISK_FULL, id="enospc"),
        pytest.param(os_error(errno.EDQUOT), ExitCode.DISK_FULL, id="edquot"),
        pytest.param(
            caused(RuntimeError("saving failed"), os_error(errno.ENOSPC)), ExitCode.DISK_FULL, id="enospc-as-the-cause"
        ),
        pytest.param(
            ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ExitCode.DISK_FULL,
            id="safetensors",
        ),
        pytest.param(
            # /runs does not exist, so no byte is free there
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            ExitCode.DISK_FULL,
            id="torch-save",
        ),
        pytest.param(os_error(errno.EACCES, f"{RUN}/attempt-1"), ExitCode.RUN_DIRECTORY_UNUSABLE, id="not-allowed"),
        pytest.param(os_error(errno.EROFS, f"{RUN}/attempt-1"), ExitCode.RUN_DIRECTORY_UNUSABLE, id="read-only"),
        pytest.param(os_error(errno.EFBIG), ExitCode.RUN_DIRECTORY_UNUSABLE, id="file-size-limit"),
        pytest.param(os_error(errno.EACCES, "/elsewhere"), ExitCode.INTERNAL_ERROR, id="not-allowed-elsewhere"),
        pytest.param(ModuleNotFoundError("No module named 'peft'"), ExitCode.DEPENDENCY_MISSING, id="not-installed"),
        pytest.param(KeyError("surprise"), ExitCode.INTERNAL_ERROR, id="nobody-foresaw"),
        pytest.param(SystemExit(3), ExitCode.INTERNAL_ERROR, id="a-library-that-exits"),
    ],
)
def test_the_cause_is_told_from_the_exception_chain(error: BaseException, exit_code: ExitCode) -> None:
    diagnosis = diagnose(error, directory=RUN)
    assert diagnosis.exit_code is exit_code
    assert diagnosis.message
    assert diagnosis.remedy


def test_torchs_own_words_for_no_memory_are_known() -> None:
    assert diagnose(raised_by_torch(), directory=RUN).exit_code is ExitCode.HOST_OUT_OF_MEMORY


def test_a_disk_that_refuses_is_known(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")
    assert diagnose(caught.value, directory=tmp_path).exit_code is ExitCode.DISK_FULL


def test_a_chain_that_bites_its_tail_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert list(chain(one)) == [one, other]


def test_the_report_has_the_chain_with_the_root_cause_last(tmp_path: Path) -> None:
    error = caused(RuntimeError("saving failed"), OSError(errno.ENOSPC, "No space left on device"))
    file = tmp_path / "failure.json"
    write_failure(file, error, diagnose(error, directory=tmp_path), phase="saving", memory={"memory_bytes": 5})
    report = read_document(file, FailureReport)
    assert (report.failure_code, report.phase, report.memory) == ("disk_full", "saving", {"memory_bytes": 5})
    assert [entry.type for entry in report.exceptions] == ["RuntimeError", "OSError"]


def test_the_report_is_bounded_and_valid_whatever_the_message(tmp_path: Path) -> None:
    error = ValueError("\ud800" + "x" * 100_000)
    diagnosis = Diagnosis(exit_code=ExitCode.INTERNAL_ERROR, message=str(error), remedy="read")
    file = tmp_path / "failure.json"
    write_failure(file, error, diagnosis, phase="training", memory={})
    report = read_document(file, FailureReport)
    assert len(report.message) == MAX_MESSAGE_CHARACTERS
    assert all(len(entry.message) <= MAX_MESSAGE_CHARACTERS for entry in report.exceptions)


def test_a_report_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    error = ValueError("x")
    write_failure(tmp_path / "none" / "failure.json", error, diagnose(error, directory=tmp_path), phase="x", memory={})
