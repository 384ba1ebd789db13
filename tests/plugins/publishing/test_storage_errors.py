from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from peft_retraining.errors import InfrastructureError, PlatformError
from peft_retraining.publishing.storage_errors import Access, storage_errors, storage_failure


def refusal(number: int, path: object = None) -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("number", "kind", "failure_code"),
    [
        pytest.param(errno.ENOSPC, InfrastructureError, "disk_full", id="no space"),
        pytest.param(errno.EDQUOT, InfrastructureError, "disk_full", id="quota used up"),
        pytest.param(errno.EACCES, PlatformError, "adapter_storage_forbidden", id="permission denied"),
        pytest.param(errno.EPERM, PlatformError, "adapter_storage_forbidden", id="not permitted"),
        pytest.param(errno.EROFS, PlatformError, "adapter_storage_forbidden", id="read-only"),
        pytest.param(errno.EIO, InfrastructureError, "adapter_storage_failed", id="input/output error"),
        pytest.param(errno.ESTALE, InfrastructureError, "adapter_storage_failed", id="stale network mount"),
        pytest.param(errno.ENOENT, InfrastructureError, "adapter_storage_failed", id="vanished meanwhile"),
    ],
)
def test_each_refusal_says_who_has_to_act(tmp_path: Path, number: int, kind: type, failure_code: str) -> None:
    error = storage_failure(refusal(number, str(tmp_path / "adapter")), tmp_path, Access.WRITE)

    assert type(error) is kind
    assert error.failure_code == failure_code
    assert str(tmp_path / "adapter") in str(error)
    assert str(tmp_path) in error.remedy
    assert error.evidence["errno"] == errno.errorcode[number]


def test_the_path_of_the_block_is_named_when_the_error_names_none(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=str(tmp_path)) as caught, storage_errors(tmp_path, Access.WRITE):
        raise refusal(errno.ENOSPC)

    assert isinstance(caught.value.__cause__, OSError)


def test_a_missing_permission_names_owner_mode_user_and_need(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)

    error = storage_failure(refusal(errno.EACCES, str(tmp_path / "not" / "there")), tmp_path, Access.WRITE)

    assert f"{tmp_path} belongs to {tmp_path.owner()}:{tmp_path.group()} with mode drwxr-x---" in str(error)
    assert f"uid {os.geteuid()}" in str(error)
    assert "rwx" in str(error)


def test_an_owner_without_a_name_is_told_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("grp.getgrgid", unknown)

    error = storage_failure(refusal(errno.EACCES), tmp_path, Access.READ)

    assert f"belongs to {tmp_path.stat().st_uid}:{tmp_path.stat().st_gid}" in str(error)


def test_a_read_only_file_system_is_not_blamed_on_permissions(tmp_path: Path) -> None:
    assert "mounted read-write" in str(storage_failure(refusal(errno.EROFS), tmp_path, Access.WRITE))
