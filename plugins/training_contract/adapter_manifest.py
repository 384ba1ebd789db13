"""``manifest.json`` of a published adapter: what it is, what it was trained on, and the hash of each file.

Written by the Airflow side when it publishes, read by whoever serves the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from training_contract.documents import read_document
from training_contract.durable_files import file_sha256
from training_contract.errors import DocumentInvalid
from training_contract.result import FileEntry

MANIFEST_NAME = "manifest.json"
LATEST_NAME = "latest"
VERSIONS_NAME = "versions"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterManifest:
    """One published version of an adapter.

    Attributes:
        adapter_name: Name of the adapter; versions of one name replace each other.
        version: Name of the version's directory; sorts by the end of its data window.
        training_run_id: The run that trained it.
        dag_id: Airflow's ids of that run.
        run_id: Likewise.
        window_ends_at: End (exclusive) of the rows it was trained on, UTC ISO 8601.
        data_digest: Digest of those rows.
        base_model_name_or_path: The model it is for.
        base_model_revision: The commit of that model; ``None`` for a directory.
        peft_type: For example ``"LORA"``.
        base_heldout_loss: Held-out loss of the bare base model.
        adapter_heldout_loss: Held-out loss with this adapter.
        files: Hash and size by path inside the version's directory, this manifest apart.
        published_at: UTC ISO 8601.
    """

    adapter_name: str
    version: str
    training_run_id: str
    dag_id: str
    run_id: str
    window_ends_at: str
    data_digest: str
    base_model_name_or_path: str
    peft_type: str
    base_heldout_loss: float
    adapter_heldout_loss: float
    files: Mapping[str, FileEntry]
    published_at: str
    base_model_revision: str | None = None


def resolve_latest(adapters_directory: Path, adapter_name: str) -> Path:
    """Return the directory of the version that ``latest`` stands for at this moment.

    The alias is resolved once: what comes back never changes, even when ``latest`` moves on while it is read.

    Raises:
        FileNotFoundError: Nothing was published under this name.
    """
    alias = adapters_directory / adapter_name / LATEST_NAME
    try:
        return alias.parent / alias.readlink()
    except OSError as error:
        raise FileNotFoundError(f"no adapter is published at {alias}") from error


def read_verified_manifest(version_directory: Path) -> AdapterManifest:
    """Read a version's manifest and check every file against its hash.

    Raises:
        ContractError: The manifest is missing or invalid, or a file is not the one that was published.
    """
    path = version_directory / MANIFEST_NAME
    manifest = read_document(path, AdapterManifest)
    problems = []
    for name, entry in manifest.files.items():
        file = version_directory / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file_sha256(file) != entry.sha256:
            problems.append(f"{name} does not have the hash it was published with")
    if problems:
        raise DocumentInvalid(document=str(path), problems=problems)
    return manifest
