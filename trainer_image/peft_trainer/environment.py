"""The environment variables that the libraries read when they are imported; set before, from the spec.

Also the versions of the packages that are installed, read without importing them.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Mapping, MutableMapping
from typing import Final

from training_contract.run_spec import GpuUse, RunSpec

REQUIREMENTS: Final[Mapping[str, str]] = {
    "accelerate": ">=1.12",
    "datasets": ">=5,<6",
    "huggingface-hub": ">=2,<3",
    "peft": ">=0.21,<0.22",
    "psutil": ">=7",
    "pyarrow": ">=22",
    "safetensors": ">=0.6",
    "sentencepiece": ">=0.2",
    "torch": ">=2.9",
    "transformers": ">=5.20,<6",
}
"""Range of versions by distribution, as in ``trainer_image/pyproject.toml``; a test compares them."""


def prepare_environment(spec: RunSpec, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell the libraries, before they are imported, what this run allows.

    Args:
        spec: The run.
        environ: The environment, for tests.
    """
    silence(environ)
    # Threads that wait sleep instead of spinning: a little slower on a quiet machine, and 5 times faster on one whose
    # cores are shared (measured with SmolLM2-135M on two cores beside three busy processes).
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if spec.base_model.local_files_only:
        environ["HF_HUB_OFFLINE"] = "1"
    if spec.limits.gpu is GpuUse.NEVER:
        environ["CUDA_VISIBLE_DEVICES"] = ""
    else:
        # One run, one GPU: with several, transformers' Trainer would spread batches over them behind our back.
        environ["CUDA_VISIBLE_DEVICES"] = environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def silence(environ: MutableMapping[str, str] = os.environ, *, progress_bars: bool = False) -> None:
    """Keep the libraries from phoning home, and from drawing progress bars into the log.

    Args:
        environ: The environment, for tests.
        progress_bars: Whether somebody watches who wants them.
    """
    environ.update(HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    if not progress_bars:
        environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")


def installed_versions() -> Mapping[str, str]:
    """Return the versions of the trainer's packages by distribution name; those not installed are left out."""
    versions = {}
    for name in (*REQUIREMENTS, "tokenizers"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def version_problem(version: str, needed: str) -> str | None:
    """Return what is wrong with a version: ``"too old"``, ``"too new"``, or ``None``.

    Args:
        version: For example ``"2.13.0+cpu"``; what follows the plus sign does not count.
        needed: A range of ``REQUIREMENTS``: a minimum, and perhaps a bound above.
    """
    found = _numbers(version)
    minimum, _, bound = needed.partition(",")
    if found < _numbers(minimum):
        return "too old"
    if bound and found >= _numbers(bound):
        return "too new"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", version.partition("+")[0])[:3])
