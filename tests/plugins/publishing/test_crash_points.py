"""Publishing dies, or the storage fails, at each of its system calls: latest stays whole, and the next publish works.

SIGKILL leaves the page cache alone: this shows atomicity against the death of the process, not against a power cut.
"""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.publishing.shared_files import make_shared_directory, write_new_file
from tests.plugins.publishing.crash_points import CrashPoint, Ending, PublishingProcess
from tests.plugins.publishing.flush_order import UnflushedPaths
from tests.plugins.publishing.trained_adapters import TrainedAdapter, night, temporary_paths, train_adapter
from training_contract.adapter_manifest import read_verified_manifest, resolve_latest

_log = logging.getLogger(__name__)

LARGE = b"w" * (1024 * 1024 + 1)
"""More than one write."""

SWEEPING = {"unlink", "unlinkat", "rmdir"}
"""What publishing can do without."""

STORAGE_CODES = {"disk_full", "adapter_storage_failed", "adapter_storage_forbidden"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A store before publishing, what is published, and what latest is before and after."""

    process: PublishingProcess
    trained: TrainedAdapter
    latest_before: str | None
    latest_after: str
    version_count: int


class ScenarioBuilder:
    """Builds the stores that publishing may meet."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = AdapterStore(root / "template", "assistant")
        self._store.adapters_directory.mkdir()
        self._trained = train_adapter(root / "candidate", night(10), weights=LARGE)

    def _publish_another(self, day: int) -> str:
        return train_adapter(self._root / f"attempt-{day}", night(day)).publish_to(self._store).version

    def _scenario(self, latest_before: str | None, latest_after: str | None = None) -> Scenario:
        reference = AdapterStore(self._root / "reference", "assistant")
        reference.adapters_directory.mkdir()
        candidate = self._trained.publish_to(reference).version
        versions = {manifest.version for manifest in self._store.versions()} | {candidate}
        (self._root / "work").mkdir()
        return Scenario(
            process=PublishingProcess(self._store.adapters_directory, self._root / "candidate", self._root / "work"),
            trained=self._trained,
            latest_before=latest_before,
            latest_after=latest_after or candidate,
            version_count=len(versions),
        )

    def first_publish(self) -> Scenario:
        return self._scenario(None)

    def newer_interval(self) -> Scenario:
        """Also sweeps what publishers before it left when they died."""
        before = self._publish_another(9)
        stage = self._store.versions_directory / ".tmp-20261108T020000Z-00000000-7-abcd"
        for directory in (stage, stage / "tokenizer"):
            make_shared_directory(directory)
        write_new_file(stage / "tokenizer" / "half", [b"ha"])
        (self._store.directory / ".tmp-latest-7-abcd").symlink_to("versions/20261108T020000Z-00000000")
        return self._scenario(before)

    def older_interval(self) -> Scenario:
        before = self._publish_another(11)
        return self._scenario(before, before)

    def version_without_alias(self) -> Scenario:
        before = self._publish_another(9)
        self._trained.publish_to(self._store)
        self._store.alias.unlink()
        self._store.alias.symlink_to(f"versions/{before}")
        return self._scenario(before)

    def published_already(self) -> Scenario:
        return self._scenario(self._trained.publish_to(self._store).version)


SCENARIOS: list[Callable[[ScenarioBuilder], Scenario]] = [
    ScenarioBuilder.first_publish,
    ScenarioBuilder.newer_interval,
    ScenarioBuilder.older_interval,
    ScenarioBuilder.version_without_alias,
    ScenarioBuilder.published_already,
]


@pytest.fixture
def newer_interval(tmp_path: Path) -> Scenario:
    return ScenarioBuilder(tmp_path).newer_interval()


def readers_get(store: AdapterStore) -> str | None:
    """The version behind latest with every hash checked; ``None`` when nothing was published yet."""
    try:
        return read_verified_manifest(resolve_latest(store.adapters_directory, store.adapter_name)).version
    except FileNotFoundError:
        return None


def assert_recovers(scenario: Scenario, point: CrashPoint) -> None:
    """After a crash, latest is the old or the new version, whole; and publishing once more puts all right."""
    store = AdapterStore(scenario.process.adapters_directory, "assistant")
    assert readers_get(store) in {scenario.latest_before, scenario.latest_after}, point
    for manifest in store.versions():
        assert store.verify(manifest.version) == manifest, point
    for path in store.adapters_directory.rglob("*"):
        assert path.is_symlink() or path.stat().st_mode & 0o007 == 0, (path, point)

    published = scenario.trained.publish_to(store)

    assert readers_get(store) == scenario.latest_after, point
    assert published.is_latest == (published.version == scenario.latest_after), point
    assert temporary_paths(store) == [], point
    assert len(store.versions()) == scenario.version_count, point
    assert store.verify(published.version) == published.manifest, point


def sweep_kills(scenario: Scenario, points: Iterable[CrashPoint]) -> Counter[str]:
    """Kill at each point in turn; return how many processes died, by system call."""
    kills: Counter[str] = Counter()
    for point in points:
        ending = scenario.process.die_at(point)
        assert ending.killed_while_publishing, f"no kill at {point}: {ending}"
        kills[point.call] += 1
        assert_recovers(scenario, point)
    return kills


def sweep_errors(scenario: Scenario, points: Iterable[CrashPoint], number: int) -> list[tuple[CrashPoint, Ending]]:
    """Let each point fail in turn; publishing says so in our own words or does without the call."""
    endings = []
    for point in points:
        ending = scenario.process.fail_at(point, number)
        assert ending.returncode == 0, f"not an error of ours at {point}: {ending.stderr}"
        done_without = "version" in ending.outcome
        assert done_without or ending.outcome["failure_code"] in STORAGE_CODES, f"{point}: {ending.outcome}"
        assert not (done_without and point.changes_storage) or point.call in SWEEPING, f"nobody noticed {point}"
        endings.append((point, ending))
        assert_recovers(scenario, point)
    return endings


def test_a_kill_at_any_change_of_the_storage_leaves_latest_whole(newer_interval: Scenario) -> None:
    points = [point for point in newer_interval.process.crash_points() if point.changes_storage]

    kills = sweep_kills(newer_interval, points)

    _log.info("killed %d publishers: %s", kills.total(), dict(kills))
    assert kills.total() == len(points) >= 30
    assert kills.keys() >= {"openat", "write", "fsync", "mkdir", "chmod", "fchmod", "rename", "symlink", "flock"}


@pytest.mark.parametrize(
    ("call", "number", "failure_code"),
    [
        pytest.param("fsync", errno.ENOSPC, "disk_full", id="no space at fsync"),
        pytest.param("write", errno.ENOSPC, "disk_full", id="no space at write"),
        pytest.param("fsync", errno.EIO, "adapter_storage_failed", id="input/output error at fsync"),
        pytest.param("rename", errno.EACCES, "adapter_storage_forbidden", id="no permission at rename"),
    ],
)
def test_storage_that_fails_is_named_and_leaves_latest_whole(
    newer_interval: Scenario, call: str, number: int, failure_code: str
) -> None:
    points = [point for point in newer_interval.process.crash_points() if point.call == call]
    sample = [points[0], points[len(points) // 2], points[-1]]

    endings = sweep_errors(newer_interval, sample, number)

    assert {ending.outcome.get("failure_code") for _, ending in endings} == {failure_code}


def test_a_publisher_that_meets_a_full_disk_removes_what_it_wrote(newer_interval: Scenario) -> None:
    first_write = next(point for point in newer_interval.process.crash_points() if point.call == "write")

    ending = newer_interval.process.fail_at(first_write, errno.ENOSPC)

    store = AdapterStore(newer_interval.process.adapters_directory, "assistant")
    assert ending.outcome == {"failure_code": "disk_full"}
    assert temporary_paths(store) == []
    assert readers_get(store) == newer_interval.latest_before


@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
def test_nothing_becomes_visible_before_it_is_on_the_disk(
    tmp_path: Path, build: Callable[[ScenarioBuilder], Scenario]
) -> None:
    scenario = build(ScenarioBuilder(tmp_path))
    store = AdapterStore(scenario.process.adapters_directory, "assistant")
    unflushed = UnflushedPaths()

    unflushed.follow(scenario.process.crash_points())

    for renaming in unflushed.renamings:
        moves_latest = renaming.target == store.alias
        below = store.versions_directory if moves_latest else store.versions_directory / ".tmp-"
        early = {path for path in renaming.unflushed if str(path).startswith(str(below))}
        assert early == set(), renaming.target
    assert unflushed.paths <= {store.directory / ".lock"}, "the lock alone has nothing to lose"


@pytest.mark.soak
@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
def test_a_kill_at_any_system_call_leaves_latest_whole(
    tmp_path: Path, build: Callable[[ScenarioBuilder], Scenario]
) -> None:
    scenario = build(ScenarioBuilder(tmp_path))
    points = scenario.process.crash_points()

    kills = sweep_kills(scenario, points)

    _log.info("%s: killed %d publishers: %s", build.__name__, kills.total(), dict(kills))
    assert kills.total() == len(points) >= 40


@pytest.mark.soak
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build.__name__)
def test_any_system_call_that_fails_leaves_latest_whole(
    tmp_path: Path, build: Callable[[ScenarioBuilder], Scenario], number: int
) -> None:
    scenario = build(ScenarioBuilder(tmp_path))

    endings = sweep_errors(scenario, scenario.process.crash_points(), number)

    found = Counter(str(ending.outcome.get("failure_code", "published")) for _, ending in endings)
    _log.info("%s, %s: %d calls failed: %s", build.__name__, errno.errorcode[number], len(endings), dict(found))
    assert found.total() - found["published"] >= 20
