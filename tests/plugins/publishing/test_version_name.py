from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_retraining.errors import UserError
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.publishing.version_name import content_digest, is_version_name, version_name, window_end
from tests.plugins.publishing.trained_adapters import file_entries
from training_contract.adapter_manifest import AdapterManifest

MANIFEST = AdapterManifest(
    adapter_name="assistant",
    version="20261110T020000Z-00000000",
    training_run_id="0123456789abcdef",
    dag_id="nightly_peft_retraining",
    run_id="scheduled__2026-11-10",
    window_ends_at="2026-11-10T02:00:00+00:00",
    data_digest="sha256:00",
    base_model_name_or_path="base",
    base_model_revision="abc",
    peft_type="LORA",
    base_heldout_loss=2.0,
    adapter_heldout_loss=1.0,
    files=file_entries({"adapter_model.safetensors": b"weights"}),
    published_at="2026-11-10T02:30:00+00:00",
)

windows = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 28), timezones=st.just(UTC))


@pytest.mark.parametrize("name", ["a", "assistant", "0", "home-iq_v2.1", "a" * 63])
def test_a_plain_name_is_accepted(name: str) -> None:
    assert AdapterStore(Path("/adapters"), name).directory == Path("/adapters") / name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a", "a/b", "/a", ".hidden", "-a", "_a", "A", "a\n", "a\x00", "ä", "a b", "a" * 64]
)
def test_a_name_that_is_no_plain_path_component_is_refused(name: str) -> None:
    with pytest.raises(UserError) as caught:
        AdapterStore(Path("/adapters"), name)

    assert caught.value.failure_code == "adapter_name_invalid"


def test_a_version_is_named_after_the_end_of_its_window_in_utc() -> None:
    in_vienna = datetime(2026, 11, 10, 3, 0, tzinfo=timezone(timedelta(hours=1)))

    assert version_name(in_vienna, "1f2e3d4c" + "0" * 56) == "20261110T020000Z-1f2e3d4c"


@given(one=windows, other=windows)
def test_version_names_sort_by_the_second_in_which_the_window_ends(one: datetime, other: datetime) -> None:
    names = [version_name(instant, "0" * 64) for instant in (one, other)]

    assert all(is_version_name(name) for name in names)
    assert (names[0] < names[1]) == (one.replace(microsecond=0) < other.replace(microsecond=0))


@pytest.mark.parametrize(
    "change",
    [
        {"training_run_id": "fedcba9876543210"},
        {"window_ends_at": "2026-11-10T02:00:00.000001+00:00"},
        {"data_digest": "sha256:01"},
        {"base_model_revision": "def"},
        {"peft_type": "PROMPT_TUNING"},
        {"files": file_entries({"adapter_model.safetensors": b"other weights"})},
        {"files": file_entries({"other_name.safetensors": b"weights"})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_or_other_content_has_another_digest(change: dict[str, object]) -> None:
    assert content_digest(replace(MANIFEST, **change)) != content_digest(MANIFEST)  # type: ignore[arg-type]


def test_time_of_publishing_and_way_of_writing_the_window_do_not_change_the_digest() -> None:
    same = replace(MANIFEST, window_ends_at="2026-11-10T03:00:00+01:00", published_at="2027-01-01T00:00:00+00:00")

    assert content_digest(same) == content_digest(MANIFEST)


def test_a_window_end_without_an_offset_is_no_instant() -> None:
    with pytest.raises(ValueError, match="offset"):
        window_end(replace(MANIFEST, window_ends_at="2026-11-10T02:00:00"))
