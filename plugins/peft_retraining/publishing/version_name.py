"""How adapters and their versions are named, and which interval a version is of.

Pure: the gate and the store ask the same questions here.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime

from peft_retraining.errors import UserError
from training_contract.adapter_manifest import AdapterManifest

_ADAPTER_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_VERSION = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


def check_adapter_name(adapter_name: str) -> None:
    """Refuse a name that is not one plain path component.

    Raises:
        UserError: ``adapter_name_invalid``.
    """
    if not _ADAPTER_NAME.fullmatch(adapter_name):
        raise UserError(
            f"{adapter_name[:80]!r} is not a name for an adapter",
            failure_code="adapter_name_invalid",
            remedy="Set adapter_name to 1 to 63 of a-z, 0-9, '_', '.', '-', beginning with a letter or a digit.",
        )


def is_version_name(text: str) -> bool:
    """Tell whether this is how a version is named, and so one plain path component."""
    return _VERSION.fullmatch(text) is not None


def version_name(window_ends_at: datetime, content_digest: str) -> str:
    """Name a version, so that names sort by the end of the data window.

    Args:
        window_ends_at: End of the window, with its time zone.
        content_digest: What ``content_digest`` returned.

    Returns:
        For example ``"20261110T020000Z-1f2e3d4c"``.
    """
    second = window_ends_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{second.replace('-', '').replace(':', '')}Z-{content_digest[:8]}"


def content_digest(manifest: AdapterManifest) -> str:
    """Return a digest of what was published by whom, the time and place of publishing apart.

    The same bytes of the same run give the same digest; another run, other rows or other weights give another.

    Returns:
        64 hexadecimal digits.
    """
    identity = [
        manifest.training_run_id,
        window_end(manifest).isoformat(),
        manifest.data_digest,
        manifest.base_model_name_or_path,
        manifest.base_model_revision,
        manifest.peft_type,
        sorted([name, entry.sha256, entry.size_bytes] for name, entry in manifest.files.items()),
    ]
    return hashlib.sha256(json.dumps(identity).encode("ascii")).hexdigest()


def window_end(manifest: AdapterManifest) -> datetime:
    """Return the end of the data window as an instant in UTC; texts with different offsets do not sort.

    Raises:
        ValueError: ``window_ends_at`` is no ISO 8601 time with an offset.
    """
    instant = datetime.fromisoformat(manifest.window_ends_at)
    if instant.tzinfo is None:
        raise ValueError(f"window_ends_at has no offset from UTC: {manifest.window_ends_at!r}")
    return instant.astimezone(UTC)
