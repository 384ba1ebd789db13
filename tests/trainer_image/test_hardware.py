"""What is computed on is chosen from the limits, the control group and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from peft_trainer.environment import prepare_environment, silence
from peft_trainer.errors import GpuUnavailable
from peft_trainer.hardware import choose_device, cpu_threads
from peft_trainer.memory import available_bytes
from training_contract.run_spec import BaseModelSpec, DataSpec, GpuUse, LimitsSpec, RunSpec


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on four CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        pytest.param({}, 4, id="no-control-group"),
        pytest.param({"cpu.max": "max 100000"}, 4, id="v2-no-quota"),
        pytest.param({"cpu.max": "200000 100000"}, 2, id="v2-two-cpus"),
        pytest.param({"cpu.max": "150000 100000"}, 2, id="v2-one-and-a-half"),
        pytest.param({"cpu.max": "10000 100000"}, 1, id="v2-a-tenth"),
        pytest.param({"cpu.max": "800000 100000"}, 4, id="v2-more-than-there-are"),
        pytest.param({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3, id="v1-three-cpus"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4, id="v1-no-quota"),
    ],
)
def test_threads_are_as_many_as_the_control_group_pays_for(
    tmp_path: Path, files: Mapping[str, str], threads: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert cpu_threads(None, cgroup_root=tmp_path) == threads


def test_the_specs_own_limit_comes_first_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cpu_threads(None, cgroup_root=tmp_path) == 3
    assert cpu_threads(2, cgroup_root=tmp_path) == 2


@pytest.mark.parametrize("gpu", [GpuUse.NEVER, GpuUse.IF_AVAILABLE])
def test_without_a_gpu_the_cpu_computes_in_fp32(gpu: GpuUse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    device = choose_device(LimitsSpec(gpu=gpu, cpu_threads=1))
    assert (device.torch_device, device.bf16, device.is_gpu) == ("cpu", False, False)


def test_a_required_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(GpuUnavailable, match="GPU"):
        choose_device(LimitsSpec(gpu=GpuUse.REQUIRED, cpu_threads=1))


@pytest.mark.gpu
def test_a_gpu_is_used_when_it_is_there() -> None:
    assert choose_device(LimitsSpec(gpu=GpuUse.REQUIRED)).is_gpu


@pytest.mark.parametrize(
    ("files", "available"),
    [
        pytest.param({"memory.max": "3000", "memory.current": "1000"}, 2000, id="v2"),
        pytest.param({"memory.max": "1000", "memory.current": "3000"}, 0, id="v2-over-the-limit"),
        pytest.param({"memory/memory.limit_in_bytes": "3000", "memory/memory.usage_in_bytes": "500"}, 2500, id="v1"),
    ],
)
def test_available_memory_is_what_the_control_group_leaves(
    tmp_path: Path, files: Mapping[str, str], available: int
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_bytes(tmp_path) == available


def environment_for(gpu: GpuUse, *, local_files_only: bool = True, **before: str) -> dict[str, str]:
    environ = dict(before)
    spec = RunSpec(
        training_run_id="a",
        adapter_name="a",
        base_model=BaseModelSpec(base_model_name_or_path="someone/tiny", local_files_only=local_files_only),
        peft_type="LORA",
        data=DataSpec(digest="sha256:0", train_row_count=1, heldout_row_count=1),
        limits=LimitsSpec(gpu=gpu),
    )
    prepare_environment(spec, environ)
    return environ


def test_nobody_phones_home() -> None:
    environ = environment_for(GpuUse.NEVER)
    assert (environ["HF_HUB_DISABLE_TELEMETRY"], environ["HF_HUB_OFFLINE"]) == ("1", "1")
    assert "HF_HUB_OFFLINE" not in environment_for(GpuUse.NEVER, local_files_only=False)


@pytest.mark.parametrize("progress_bars", [True, False])
def test_progress_bars_are_drawn_only_for_somebody_who_watches(progress_bars: bool) -> None:
    environ: dict[str, str] = {}
    silence(environ, progress_bars=progress_bars)
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" not in environ) is progress_bars
    assert environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


def test_threads_that_wait_sleep_unless_someone_decided_otherwise() -> None:
    assert environment_for(GpuUse.NEVER)["OMP_WAIT_POLICY"] == "PASSIVE"
    assert environment_for(GpuUse.NEVER, OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("gpu", "before", "visible"),
    [
        pytest.param(GpuUse.NEVER, {"CUDA_VISIBLE_DEVICES": "0,1"}, "", id="never"),
        pytest.param(GpuUse.IF_AVAILABLE, {}, "0", id="the-first"),
        pytest.param(GpuUse.REQUIRED, {"CUDA_VISIBLE_DEVICES": "3,1"}, "3", id="the-first-of-those-given"),
        pytest.param(GpuUse.REQUIRED, {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, "GPU-8932f937", id="by-its-id"),
    ],
)
def test_a_run_sees_one_gpu_at_most(gpu: GpuUse, before: dict[str, str], visible: str) -> None:
    assert environment_for(gpu, **before)["CUDA_VISIBLE_DEVICES"] == visible
