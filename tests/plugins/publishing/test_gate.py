from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_retraining.publishing.gate import decide_alias
from peft_retraining.publishing.version_name import window_end
from tests.plugins.publishing.test_version_name import MANIFEST, windows
from training_contract.adapter_manifest import AdapterManifest


def version_of(window_ends_at: str, version: str) -> AdapterManifest:
    return replace(MANIFEST, window_ends_at=window_ends_at, version=version)


CURRENT = version_of("2026-11-10T02:00:00+00:00", "20261110T020000Z-aaaaaaaa")


@pytest.mark.parametrize(
    ("window_ends_at", "moves"),
    [
        pytest.param("2026-11-11T02:00:00+00:00", True, id="newer interval"),
        pytest.param("2026-11-09T02:00:00+00:00", False, id="older interval"),
        pytest.param("2026-11-10T02:00:00+00:00", True, id="same interval retrained"),
        pytest.param("2026-11-10T03:00:00+01:00", True, id="same instant, written with another offset"),
        pytest.param("2026-11-10T02:30:00+01:00", False, id="older instant, though its text sorts after"),
        pytest.param("2026-11-10T01:30:00-01:00", True, id="newer instant, though its text sorts before"),
        pytest.param("2026-11-10T01:59:59.999999Z", False, id="older by a microsecond"),
    ],
)
def test_latest_moves_to_an_interval_that_is_not_older(window_ends_at: str, moves: bool) -> None:
    decision = decide_alias(CURRENT, version_of(window_ends_at, "20261110T020000Z-bbbbbbbb"))

    assert decision.move is moves
    assert CURRENT.version in decision.reason


def test_latest_moves_to_anything_when_there_is_none() -> None:
    assert decide_alias(None, CURRENT).move


def test_latest_does_not_move_to_itself() -> None:
    decision = decide_alias(CURRENT, CURRENT)

    assert not decision.move
    assert "already" in decision.reason


@given(st.lists(windows, min_size=1, max_size=12))
def test_in_whatever_order_intervals_come_latest_ends_on_the_newest(ends: list[object]) -> None:
    current = None
    for number, end in enumerate(ends):
        candidate = version_of(end.isoformat(), f"version-{number}")  # type: ignore[attr-defined]
        if decide_alias(current, candidate).move:
            current = candidate

    assert current is not None
    assert window_end(current) == max(ends)  # type: ignore[type-var]
