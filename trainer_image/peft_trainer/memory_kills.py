"""How many processes the kernel has killed for memory in our control group.

The count is the only trace when the kernel kills a child of the trainer and not the trainer itself.
"""

from __future__ import annotations

from pathlib import Path


def oom_kill_count(memberships: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Read the kernel's count for our control group, version 1 or 2.

    Args:
        memberships: Lines of ``HIERARCHY:CONTROLLERS:PATH``.
        mount: Where the control groups are mounted.

    Returns:
        Kills since the group was made; ``None`` when the kernel does not tell.
    """
    try:
        lines = memberships.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            groups, file_name = mount, "memory.events"
        elif "memory" in controllers.split(","):
            groups, file_name = mount / "memory", "memory.oom_control"
        else:
            continue
        # In a container the path may be the host's while the mount shows only our own group, at its root.
        for group in (groups / path.lstrip("/"), groups):
            count = _count_in(group / file_name)
            if count is not None:
                return count
    return None


def _count_in(file: Path) -> int | None:
    try:
        fields = dict(line.split() for line in file.read_text(encoding="ascii").splitlines())
        return int(fields["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None
