"""The published versions of one adapter, and the alias ``latest`` that readers follow. Reading only.

Comes in: what ``publication`` wrote. Goes out: manifests, to the page and the command line, and to the sensor, which
asks since when rows are new.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from peft_retraining.errors import PlatformError, UserError
from peft_retraining.publishing.shared_files import is_there
from peft_retraining.publishing.storage_errors import Access, storage_errors
from peft_retraining.publishing.version_name import check_adapter_name, is_version_name, window_end
from training_contract.adapter_manifest import (
    LATEST_NAME,
    MANIFEST_NAME,
    VERSIONS_NAME,
    AdapterManifest,
    read_verified_manifest,
)
from training_contract.documents import read_document
from training_contract.errors import ContractError, ContractVersionError

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class AdapterStore:
    """The versions of one adapter.

    Attributes:
        adapters_directory: Holds all adapters.
        adapter_name: Which one.
    """

    adapters_directory: Path
    adapter_name: str

    def __post_init__(self) -> None:
        """Refuse a name that is not one plain path component.

        Raises:
            UserError: ``adapter_name_invalid``.
        """
        check_adapter_name(self.adapter_name)

    @property
    def directory(self) -> Path:
        """Where this adapter lies."""
        return self.adapters_directory / self.adapter_name

    @property
    def versions_directory(self) -> Path:
        """Where its versions lie."""
        return self.directory / VERSIONS_NAME

    @property
    def alias(self) -> Path:
        """The link that readers follow."""
        return self.directory / LATEST_NAME

    def latest(self) -> AdapterManifest | None:
        """Return the manifest of the version that readers get; ``None`` when ``latest`` leads to no complete version.

        Raises:
            RetrainingError: As ``versions``.
        """
        with storage_errors(self.alias, Access.READ):
            if not self.alias.is_symlink():
                return None
            target = self.directory / self.alias.readlink()
            try:
                leads_here = target.parent.samefile(self.versions_directory)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return self._read_complete(target.name) if leads_here else None

    def versions(self) -> list[AdapterManifest]:
        """Return the complete versions, newest data window first, and of one window the last published first.

        Raises:
            PlatformError: ``adapter_storage_forbidden``, ``published_by_another_release``.
            InfrastructureError: ``adapter_storage_failed``.
        """
        with storage_errors(self.versions_directory, Access.READ):
            paths = list(self.versions_directory.iterdir()) if self.versions_directory.is_dir() else []
            found = [manifest for path in paths if (manifest := self._read_complete(path.name)) is not None]
        return sorted(found, key=lambda manifest: (window_end(manifest), manifest.published_at), reverse=True)

    def verify(self, version: str) -> AdapterManifest:
        """Read a version and check every file of it against its hash.

        Raises:
            UserError: ``adapter_version_unknown``.
            PlatformError: ``published_adapter_damaged``, ``published_by_another_release``,
                ``adapter_storage_forbidden``.
            InfrastructureError: ``adapter_storage_failed``.
        """
        path = self.versions_directory / version
        with storage_errors(path, Access.READ):
            if not is_version_name(version) or not is_there(path):
                raise UserError(
                    f"adapter {self.adapter_name} has no version {version[:80]!r} in {self.versions_directory}",
                    failure_code="adapter_version_unknown",
                    remedy=f"Choose one that `peft-retraining adapters list` shows for {self.adapter_name}.",
                )
            if path.is_symlink() or not path.is_dir():
                raise damaged_version(path, "it is not a directory")
            try:
                manifest = read_verified_manifest(path)
            except ContractVersionError as error:
                raise _by_another_release(error) from error
            except ContractError as error:
                _raise_cause_in_storage(error)
                raise damaged_version(path, str(error)) from error
        if not self._is_manifest_of(manifest, version):
            raise damaged_version(path, f"its {MANIFEST_NAME} is that of {manifest.adapter_name} {manifest.version}")
        return manifest

    def _read_complete(self, version: str) -> AdapterManifest | None:
        """Read a version's manifest without its files; ``None`` for what is not a complete version of this adapter."""
        if not is_version_name(version):
            return None
        try:
            manifest = read_document(self.versions_directory / version / MANIFEST_NAME, AdapterManifest)
        except ContractVersionError as error:
            # Not taken for missing: to an older release everything published by a newer one would be gone, and the
            # next backfill would become latest.
            raise _by_another_release(error) from error
        except ContractError as error:
            _raise_cause_in_storage(error)
            return None
        return manifest if self._is_manifest_of(manifest, version) else None

    def _is_manifest_of(self, manifest: AdapterManifest, version: str) -> bool:
        try:
            window_end(manifest)
        except ValueError:
            return False
        return (manifest.adapter_name, manifest.version) == (self.adapter_name, version)


def damaged_version(path: Path, problem: str) -> PlatformError:
    """Say that a published version is not what was published; publishing itself never leaves one so."""
    return PlatformError(
        f"the published adapter {path} is damaged: {problem}",
        failure_code="published_adapter_damaged",
        remedy=f"Restore {path} from a backup, or move it away and clear publish_adapter of its run.",
        evidence={"path": str(path)},
    )


def _by_another_release(error: ContractVersionError) -> PlatformError:
    return PlatformError(
        str(error),
        failure_code="published_by_another_release",
        remedy="Install the release that published it, or a newer one, on every worker.",
        evidence={"path": error.document, "found": str(error.found), "expected": error.expected},
    )


def _raise_cause_in_storage(error: ContractError) -> None:
    """Raise what the storage said when a manifest could not be read although it may well be there."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno not in _MISSING:
        raise cause
