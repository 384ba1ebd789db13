"""What a power cut would lose: follows system calls and tells what was changed and not flushed yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.plugins.publishing.crash_points import CrashPoint

_OF_DESCRIPTOR = re.compile(r"(write|fchmod|fsync)\(\d+<([^>]*)>.* = \d+$")
_CREATED = re.compile(r"openat\(.*\bO_CREAT\b.* = \d+<([^>]*)>$")
_OF_PATH = re.compile(r'(mkdir|chmod|unlink|rmdir)\("([^"]*)".* = 0$')
_LINKED = re.compile(r'symlink\("[^"]*", "([^"]*)"\) += 0$')
_RENAMED = re.compile(r'rename\("([^"]*)", "([^"]*)"\) += 0$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """A name that became visible, and what was not on the disk by then."""

    target: Path
    unflushed: frozenset[Path]


@dataclass(slots=True)
class UnflushedPaths:
    """Paths whose content, mode or (directories) entries a power cut could lose.

    A file system may do better than this; it need not.
    """

    paths: set[Path] = field(default_factory=set)
    renamings: list[Renaming] = field(default_factory=list)

    def follow(self, points: Iterable[CrashPoint]) -> None:
        for point in points:
            self._follow(point.logged.split(maxsplit=1)[1])

    def _follow(self, call: str) -> None:
        if match := _OF_DESCRIPTOR.match(call):
            name, path = match.groups()
            (self.paths.discard if name == "fsync" else self.paths.add)(Path(path))
        elif match := _CREATED.match(call):
            path = match.group(1)
            self.paths |= {Path(path), Path(path).parent}
        elif match := _OF_PATH.match(call):
            name, path = match.groups()
            self.paths |= {Path(path), Path(path).parent} if name == "mkdir" else {Path(path).parent}
            self.paths |= {Path(path)} if name == "chmod" else set()
        elif match := _LINKED.match(call):
            self.paths.add(Path(match.group(1)).parent)
        elif match := _RENAMED.match(call):
            source, target = map(Path, match.groups())
            self.renamings.append(Renaming(target=target, unflushed=frozenset(self.paths)))
            self.paths |= {source.parent, target.parent}
