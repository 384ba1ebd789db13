"""The part of preflight that rehearses the run: its rows, its model, its adapter, its hardware.

Comes in: the spec. Goes out: findings. The model's files are read to the end, and the adapter is put on a model without
weights, so that what PEFT would say in the middle of the run is said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from peft_trainer import memory
from peft_trainer.adapter import METHODS, check_settings, rehearse
from peft_trainer.dataset import verify_rows
from peft_trainer.errors import AdapterSettingsInvalid, DataEmpty, DataInvalid, ModelInvalid
from peft_trainer.findings import error_finding, info_finding, warning_finding
from peft_trainer.hardware import NO_GPU_REMEDY, gpu_problem
from peft_trainer.model_files import ModelFiles, inspect_model
from peft_trainer.model_location import PATH_REMEDY, SAFETENSORS_REMEDY, cache_directory_of, prefetch_command
from training_contract.locations import RunDirectory
from training_contract.preflight_report import CacheState, Finding
from training_contract.run_spec import BaseModelSpec, GpuUse, RunSpec

_LIBRARIES_BYTES: Final = 1024**3
_BYTES_PER_PARAMETER: Final = 8
"""fp32 weights, and as much again for activations and logits: the measured peaks of 60 to 135 million parameters."""


def find_model(spec: RunSpec) -> ModelFiles:
    """Look at the base model's files, all the way through."""
    return inspect_model(
        spec.base_model.base_model_name_or_path,
        revision=spec.base_model.revision,
        cache_directory=cache_directory_of(spec.base_model),
        verify_content=True,
    )


def findings(run: RunDirectory, spec: RunSpec, files: ModelFiles) -> Iterator[Finding]:
    """Yield what is worth saying about a run.

    Args:
        run: Where its rows are.
        spec: What is to be trained.
        files: The base model's files.
    """
    yield from _data_findings(run, spec)
    yield from _model_findings(spec.base_model, files)
    yield from _adapter_findings(spec, files)
    yield from _gpu_findings(spec)
    yield from _memory_findings(files)


def _data_findings(run: RunDirectory, spec: RunSpec) -> Iterator[Finding]:
    try:
        verify_rows(run.rows_file, spec.data)
    except DataInvalid as error:
        yield error_finding("SNAPSHOT_INVALID", str(error), error.remedy)
    except DataEmpty as error:
        yield error_finding("DATA_EMPTY", str(error), error.remedy)


def _model_findings(spec: BaseModelSpec, files: ModelFiles) -> Iterator[Finding]:
    name = files.name
    prefetch = prefetch_command(spec.base_model_name_or_path, spec.revision)
    evidence = {"directory": str(files.directory or ""), "commit": files.commit or ""}
    if files.state is CacheState.COMPLETE:
        yield info_finding(
            "MODEL_CACHE_COMPLETE", f"{name} is there, whole: {files.parameter_count} parameters", evidence
        )
    elif files.is_directory and files.directory is None:
        yield error_finding("MODEL_DIRECTORY_MISSING", f"the base model's directory {name} is not there", PATH_REMEDY)
    elif files.pickles:
        message = f"{name} has no safetensors weights: {files.problem}; pickles can run code and are refused"
        yield error_finding("MODEL_UNSAFE_FORMAT", message, SAFETENSORS_REMEDY, evidence)
    elif files.damaged or files.is_directory:
        remedy = "Copy the directory again." if files.is_directory else f"Fetch the model again: {prefetch}"
        message = f"the files of {name} cannot be used: {files.problem}"
        yield error_finding("MODEL_FILES_INVALID", message, remedy, evidence)
    else:
        code = "MODEL_CACHE_ABSENT" if files.directory is None else "MODEL_CACHE_PARTIAL"
        problem = f"{name} is not wholly in the cache ({files.problem})"
        if spec.local_files_only:
            message = f"{problem} and this run must not download it"
            yield error_finding(code, message, f"Fill the cache first: {prefetch}", evidence)
        else:
            message = f"{problem}; it will be downloaded when the run starts"
            yield warning_finding(code, message, f"Or fill the cache first: {prefetch}", evidence)


def _adapter_findings(spec: RunSpec, files: ModelFiles) -> Iterator[Finding]:
    if spec.peft_type not in METHODS:
        message = f"the peft_type {spec.peft_type!r} is not supported"
        yield error_finding("UNSUPPORTED_PEFT_TYPE", message, f"Use one of {', '.join(METHODS)}.")
        return
    try:
        if files.state is CacheState.COMPLETE:
            rehearse(spec.peft_type, spec.peft_settings, str(files.directory))
        else:
            check_settings(spec.peft_type, spec.peft_settings)
    except AdapterSettingsInvalid as error:
        yield error_finding("ADAPTER_SETTINGS_INVALID", str(error), error.remedy)
    except ModelInvalid as error:
        yield error_finding("MODEL_FILES_INVALID", str(error), error.remedy)


def _gpu_findings(spec: RunSpec) -> Iterator[Finding]:
    if spec.limits.gpu is GpuUse.NEVER:
        return
    problem = gpu_problem(torch)
    if problem is None:
        yield info_finding("GPU_AVAILABLE", f"the run will use {torch.cuda.get_device_name()}")
    elif spec.limits.gpu is GpuUse.REQUIRED:
        message = f"the run requires a GPU and none can be used: {problem}"
        yield error_finding("GPU_UNAVAILABLE", message, NO_GPU_REMEDY)
    else:
        yield info_finding("GPU_ABSENT", f"no GPU can be used ({problem}); the run will use the CPU")


def _memory_findings(files: ModelFiles) -> Iterator[Finding]:
    needed = files.parameter_count * _BYTES_PER_PARAMETER + _LIBRARIES_BYTES
    available = memory.available_bytes()
    if files.parameter_count and available < needed:
        yield warning_finding(
            "MEMORY_LOW",
            f"about {needed} bytes of memory are needed (an estimate) and {available} are available",
            "Give the trainer more memory, or lower per_device_train_batch_size or max_length.",
            {"needed_bytes": str(needed), "available_bytes": str(available)},
        )
