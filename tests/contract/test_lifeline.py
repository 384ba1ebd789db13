from __future__ import annotations

import os
import subprocess

import pytest

from training_contract.lifeline import LIFELINE_VARIABLE, ProcessIdentity, lifeline_from, own_identity


def test_an_identity_survives_being_written_down() -> None:
    assert ProcessIdentity.parse(str(own_identity())) == own_identity()


def test_the_calling_process_is_alive() -> None:
    assert own_identity().process_id == os.getpid()
    assert own_identity().is_alive


def test_a_process_that_ended_is_not_alive_even_before_it_is_waited_for() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity.is_alive
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert not identity.is_alive
    assert not identity.is_alive


def test_another_process_with_the_same_number_is_not_taken_for_the_one_that_ended() -> None:
    assert not ProcessIdentity(os.getpid(), own_identity().start_ticks - 1).is_alive


@pytest.mark.parametrize("text", ["1", "1:", ":1", "a:b", "-1:5", "1:2:3", "²:1"])
def test_what_is_not_an_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a process identity"):
        ProcessIdentity.parse(text)


def test_no_lifeline_is_no_fault() -> None:
    assert lifeline_from({}) is None
    assert lifeline_from({LIFELINE_VARIABLE: ""}) is None
    assert lifeline_from({LIFELINE_VARIABLE: "7:9"}) == ProcessIdentity(7, 9)
