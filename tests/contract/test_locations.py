"""Names in the run directory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_contract.locations import RunDirectory, path_component


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_becomes_one_safe_component_and_no_two_meet(one: str, other: str) -> None:
    component = path_component(one)

    assert 0 < len(component) <= 80
    assert set(component) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    assert component not in (".", "..")
    assert (component == path_component(other)) == (one == other)


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "a/b", "", ".", "..", "x\x00y", "%2e%2e", "\ud800"])
def test_a_hostile_id_stays_inside(tmp_path: Path, hostile: str) -> None:
    path = (tmp_path / path_component(hostile)).resolve()

    assert path.parent == tmp_path.resolve()


def test_an_ordinary_id_keeps_its_name() -> None:
    assert path_component("nightly_peft_retraining") == "nightly_peft_retraining"


def test_attempts_count_up_and_are_listed_in_order(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for _ in range(11):
        run.open_attempt()
    (tmp_path / "attempt-x").mkdir()
    (tmp_path / "attempt-99").write_text("a file is no attempt")

    assert [attempt.number for attempt in run.attempts()] == list(range(1, 12))


def test_two_that_open_an_attempt_at_once_never_share_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: run.open_attempt().number, range(40)))

    assert sorted(numbers) == list(range(1, 41))


def test_a_name_that_imitates_a_hashed_one_does_not_get_its_place() -> None:
    assert path_component(path_component("a/b")) != path_component("a/b")
