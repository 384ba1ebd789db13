"""How much memory we use and how much there is, in bytes.

Works without torch, so that a failure can be reported when torch itself cannot be imported.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CGROUP_ROOT = Path("/sys/fs/cgroup")


def measure() -> Mapping[str, int]:
    """Return what the process uses now, by name, in bytes; what cannot be measured is left out."""
    use = {"peak_memory_bytes": peak_bytes()}
    try:
        import psutil  # noqa: PLC0415  # it may be what is missing
    except ImportError:
        return use
    use["memory_bytes"] = psutil.Process().memory_info().rss
    cuda = _initialised_cuda()
    if cuda is not None:
        use["gpu_memory_bytes"] = cuda.memory_allocated()
        use["peak_gpu_memory_bytes"] = cuda.max_memory_allocated()
    return use


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_gpu_bytes() -> int | None:
    """Return the largest GPU memory that was allocated; ``None`` without a GPU."""
    cuda = _initialised_cuda()
    return None if cuda is None else int(cuda.max_memory_allocated())


def available_bytes(cgroup_root: Path = _CGROUP_ROOT) -> int:
    """Return how much memory this process may still take: what the host has left, and what its control group allows.

    Args:
        cgroup_root: Where the control groups are mounted, for tests.
    """
    import psutil  # noqa: PLC0415  # as above

    available = int(psutil.virtual_memory().available)
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _number_in(cgroup_root / limit_file), _number_in(cgroup_root / used_file)
        if limit is not None and used is not None:
            available = min(available, max(0, limit - used))
    return available


def _number_in(file: Path) -> int | None:
    try:
        text = file.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max" means no limit


def _initialised_cuda() -> Any:
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None
