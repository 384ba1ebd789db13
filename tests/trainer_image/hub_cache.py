"""A hub cache on the disk, as huggingface_hub lays it out, filled from a model's directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "someone/tiny"


def fill_cache(cache: Path, model: Path, *, revision: str = "main") -> Path:
    """Put a model into a hub cache under ``HUB_ID`` and return its snapshot."""
    repository = cache / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    blobs = repository / "blobs"
    refs = repository / "refs"
    for directory in (snapshot, blobs, refs):
        directory.mkdir(parents=True)
    (refs / revision).write_text(COMMIT)
    for file in model.iterdir():
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            name = hashlib.sha256(content).hexdigest()
        else:
            name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        (blobs / name).write_bytes(content)
        (snapshot / file.name).symlink_to(Path("../../blobs") / name)
    return snapshot
