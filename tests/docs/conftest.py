"""The pages, and the program that writes parts of them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
REFERENCE = DOCS / "reference"


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """``docs/generate_reference.py``; by its path, since another package may be called docs."""
    path = DOCS / "generate_reference.py"
    spec = importlib.util.spec_from_file_location("generate_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def constants_in(node: ast.AST) -> Iterator[str]:
    """Yield the texts that an expression can be; what is put together from parts is left out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants_in(node.body)
        yield from constants_in(node.orelse)


def parsed(*paths: Path) -> Iterator[ast.Module]:
    for path in paths:
        yield ast.parse(path.read_text(encoding="utf-8"))
