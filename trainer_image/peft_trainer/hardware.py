"""What the run computes on: one GPU or the CPU, in which precision, with how many threads.

Comes in: the limits of the spec. Goes out: a ``Device``; the rest of the trainer asks nobody else.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peft_trainer.errors import GpuUnavailable
from training_contract.run_spec import GpuUse, LimitsSpec

logger = logging.getLogger(__name__)

NO_GPU_REMEDY: Final = (
    "Give the trainer a GPU (container setting, driver, CUDA build of torch), or set gpu to if_available."
)
_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where the model lives.

    Attributes:
        name: For people, for example ``"NVIDIA H100"`` or ``"CPU, 2 threads"``.
        torch_device: ``"cuda"`` or ``"cpu"``.
        bf16: Whether the base model is held and run in bfloat16. Never on a CPU: without AMX or AVX512-BF16 it was
            measured to be 31 times slower than fp32.
    """

    name: str
    torch_device: str
    bf16: bool

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.torch_device != "cpu"


def choose_device(limits: LimitsSpec) -> Device:
    """Choose what to compute on, and set torch's number of threads.

    Raises:
        GpuUnavailable: A GPU is required and none can be used.
    """
    import torch  # noqa: PLC0415  # importing it costs seconds and may be what fails

    threads = cpu_threads(limits.cpu_threads)
    torch.set_num_threads(threads)
    problem = gpu_problem(torch)
    if limits.gpu is GpuUse.REQUIRED and problem is not None:
        raise GpuUnavailable(
            f"the run requires a GPU and none can be used: {problem}",
            remedy=NO_GPU_REMEDY,
        )
    if limits.gpu is GpuUse.NEVER or problem is not None:
        logger.info("Computing on the CPU with %d threads, in fp32 (%s).", threads, problem or "gpu is set to never")
        return Device(name=f"CPU, {threads} threads", torch_device="cpu", bf16=False)
    name, bf16 = torch.cuda.get_device_name(), bool(torch.cuda.is_bf16_supported())
    logger.info("Computing on %s in %s.", name, "bf16" if bf16 else "fp32")
    return Device(name=name, torch_device="cuda", bf16=bf16)


def gpu_problem(torch: Any) -> str | None:
    """Return why no GPU can be used; ``None`` when one can.

    Args:
        torch: The module.
    """
    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a build without GPU support"
    try:
        if not torch.cuda.is_available():
            return "torch finds no GPU"
        torch.zeros(1, device="cuda").add_(1).item()
    except (RuntimeError, AssertionError) as error:  # what torch raises for a driver that is too old or a busy GPU
        return str(error).splitlines()[0]
    return None


def cpu_threads(limit: int | None, *, cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return how many threads to compute with.

    Args:
        limit: The run's own limit; ``None``: as many as the process may use.
        cgroup_root: Where the control groups are mounted, for tests.

    Returns:
        At least 1. Without a limit: ``OMP_NUM_THREADS`` if someone set it, else the CPUs that the process may run on,
        as far as the control group's quota pays for them. More threads than that are slower, not faster.
    """
    if limit is not None:
        return max(1, limit)
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdigit() and int(chosen) > 0:
        return int(chosen)
    quota = _cgroup_cpus(cgroup_root)
    allowed = len(os.sched_getaffinity(0))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _cgroup_cpus(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text("ascii").strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text("ascii").strip()
        except OSError:
            return None
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) > 0 else None
