from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from peft_retraining.errors import InfrastructureError, PlatformError
from peft_retraining.publishing.shared_files import exclusive_lock, make_shared_directory, write_new_file


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.on_sleep = lambda: None

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.on_sleep()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.usefixtures("umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, clock: FakeClock) -> None:
    make_shared_directory(tmp_path / "directory")
    write_new_file(tmp_path / "file", [b"one", b"two"])
    with exclusive_lock(tmp_path / "lock", timeout_seconds=1, monotonic=clock.monotonic, sleep=clock.sleep):
        assert mode_of(tmp_path / "lock") == 0o660

    assert mode_of(tmp_path / "directory") == 0o2770
    assert mode_of(tmp_path / "file") == 0o660
    assert (tmp_path / "file").read_bytes() == b"onetwo"


def test_a_directory_keeps_the_permissions_that_somebody_gave_it(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory").chmod(0o750)

    make_shared_directory(tmp_path / "directory")

    assert mode_of(tmp_path / "directory") == 0o750


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(FileExistsError):
        write_new_file(tmp_path / "file", [b"new"])

    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_lock_that_stays_taken_is_given_up_after_the_timeout(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "lock"
    with (
        exclusive_lock(path, timeout_seconds=30, monotonic=clock.monotonic, sleep=clock.sleep),
        pytest.raises(InfrastructureError, match=str(path)) as caught,
        exclusive_lock(path, timeout_seconds=30, monotonic=clock.monotonic, sleep=clock.sleep),
    ):
        pytest.fail("two held one lock")

    assert caught.value.failure_code == "adapter_store_locked"
    assert 1030 <= clock.seconds < 1031


def test_a_lock_is_taken_as_soon_as_it_is_free(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "lock"
    holder = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    clock.on_sleep = lambda: fcntl.flock(holder, fcntl.LOCK_UN)

    with exclusive_lock(path, timeout_seconds=30, monotonic=clock.monotonic, sleep=clock.sleep):
        assert clock.seconds < 1001

    os.close(holder)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, clock: FakeClock) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with (
        pytest.raises(OSError, match="symbolic link"),
        exclusive_lock(tmp_path / "lock", timeout_seconds=1, monotonic=clock.monotonic, sleep=clock.sleep),
    ):
        pytest.fail("a link was taken for the lock")

    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_named_as_the_cause(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)

    with (
        pytest.raises(PlatformError) as caught,
        exclusive_lock(tmp_path / "lock", timeout_seconds=1, monotonic=clock.monotonic, sleep=clock.sleep),
    ):
        pytest.fail("it was locked")

    assert caught.value.failure_code == "adapter_store_cannot_lock"
