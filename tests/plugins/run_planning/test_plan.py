"""Planning a run: the same inputs, the same spec; offline unless it must and may download."""

from __future__ import annotations

import pytest

from peft_retraining.identity import training_run_id
from peft_retraining.run_planning.plan import ModelFinding, plan_run
from peft_retraining.settings import Settings
from training_contract.preflight_report import CacheState
from training_contract.run_spec import RunSpec
from training_contract.snapshot import SnapshotManifest

SNAPSHOT = SnapshotManifest(
    digest="sha256:ab",
    train_row_count=90,
    heldout_row_count=10,
    window_ends_at="2026-11-11T02:00:00+00:00",
    frozen_at="2026-11-11T02:00:05+00:00",
)


def plan(settings: Settings, model: ModelFinding | None = None) -> RunSpec:
    return plan_run(settings, SNAPSHOT, dag_id="d", run_id="r", model=model)


def test_the_same_inputs_give_the_same_spec() -> None:
    assert plan(Settings()) == plan(Settings())


def test_the_spec_names_run_adapter_and_exactly_the_frozen_rows() -> None:
    spec = plan(Settings(adapter_name="tickets"))

    assert spec.training_run_id == training_run_id("d", "r")
    assert spec.adapter_name == "tickets"
    assert (spec.data.digest, spec.data.train_row_count, spec.data.heldout_row_count) == ("sha256:ab", 90, 10)


def test_settings_arrive_under_the_librarys_own_names() -> None:
    spec = plan(Settings(learning_rate=0.5, per_device_train_batch_size=3, peft_settings={"r": 2}, max_steps=9))

    assert (spec.training.learning_rate, spec.training.per_device_train_batch_size) == (0.5, 3)
    assert (spec.peft_settings, spec.training.max_steps) == ({"r": 2}, 9)


@pytest.mark.parametrize(
    ("allowed", "state", "local_files_only"),
    [
        (False, None, True),
        (False, CacheState.ABSENT, True),
        (True, None, False),
        (True, CacheState.ABSENT, False),
        (True, CacheState.PARTIAL, False),
        (True, CacheState.COMPLETE, True),
    ],
)
def test_a_run_works_offline_unless_it_must_and_may_download(
    allowed: bool, state: CacheState | None, local_files_only: bool
) -> None:
    model = None if state is None else ModelFinding(cache_state=state)

    assert plan(Settings(allow_model_download=allowed), model).base_model.local_files_only is local_files_only


def test_the_revision_is_pinned_to_the_commit_that_preflight_saw() -> None:
    settings = Settings(base_model_revision="main")

    assert plan(settings).base_model.revision == "main"
    pinned = plan(settings, ModelFinding(cache_state=CacheState.COMPLETE, revision="0fc9"))
    assert pinned.base_model.revision == "0fc9"
