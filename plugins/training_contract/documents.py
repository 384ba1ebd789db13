"""How the values of the contract become JSON documents and come back.

A document is a frozen dataclass. Writing is strict (no NaN) and durable; reading ignores fields it does not know, so
that a newer minor version can add some, and reports everything that is wrong in one error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

from training_contract.durable_files import write_file
from training_contract.errors import DocumentInvalid, DocumentUnreadable
from training_contract.version import CONTRACT_VERSION, check_contract_version

Document = TypeVar("Document")

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""A larger file is refused unread: no document of the contract comes near this size."""


def to_json_text(document: object) -> str:
    """Turn a document into JSON text, one key per line, keys in the order of the fields.

    Args:
        document: A dataclass of this package.

    Raises:
        ValueError: A number is not finite.
    """
    body = {"contract_version": CONTRACT_VERSION, **_as_plain(document)}
    return json.dumps(body, indent=2, allow_nan=False, ensure_ascii=True) + "\n"


def write_document(path: Path, document: object) -> None:
    """Write a document durably: a reader sees all of it or nothing.

    Args:
        path: Where it goes; the directory exists.
        document: A dataclass of this package.

    Raises:
        OSError: The file system refuses.
        ValueError: A number is not finite.
    """
    write_file(path, to_json_text(document).encode("ascii"))


def read_document(path: Path, kind: type[Document]) -> Document:
    """Read a document and check it against its dataclass.

    Args:
        path: The file.
        kind: The dataclass it holds.

    Raises:
        DocumentUnreadable: Missing, too large, not JSON, or not an object.
        ContractVersionError: Another major version wrote it.
        DocumentInvalid: Fields are missing or of the wrong type, or a number is not finite.
    """
    return from_mapping(read_json_object(path), kind, document=str(path))


def read_json_object(path: Path) -> Mapping[str, Any]:
    """Read a file that must hold one JSON object.

    ``NaN`` and the infinities, which JSON does not have, come as such: ``from_mapping`` says which field has one.

    Raises:
        DocumentUnreadable: Missing, too large, not UTF-8, not JSON, too deep, or not an object.
    """
    document = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise DocumentUnreadable(document=document, problem=f"it is larger than {MAX_DOCUMENT_BYTES} bytes")
        body = json.loads(content.decode("utf-8"))
    except OSError as error:
        raise DocumentUnreadable(document=document, problem=error.strerror or type(error).__name__) from error
    except (ValueError, RecursionError) as error:
        raise DocumentUnreadable(document=document, problem=f"it is not JSON ({error})") from error
    if not isinstance(body, dict):
        raise DocumentUnreadable(document=document, problem="it is not a JSON object")
    return body


def from_mapping(body: Mapping[str, Any], kind: type[Document], *, document: str) -> Document:
    """Build a document from a parsed JSON object.

    Args:
        body: The object, with its ``contract_version``.
        kind: The dataclass to build.
        document: What is being read, for messages.

    Raises:
        ContractVersionError: Another major version wrote it.
        DocumentInvalid: Fields are missing or of the wrong type, or a number is not finite.
    """
    check_contract_version(body.get("contract_version"), document=document)
    problems: list[str] = []
    value = _decode_dataclass(body, kind, "", problems)
    if problems:
        raise DocumentInvalid(document=document, problems=problems)
    return typing.cast(Document, value)


def refuse_constant(constant: str) -> float:
    """Refuse ``NaN`` and the infinities, which Python's reader would accept and JSON does not have."""
    raise ValueError(f"{constant} is not a JSON number")


def _as_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _as_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_plain(item) for item in value]
    return value


def _decode_dataclass(body: Any, kind: type, place: str, problems: list[str]) -> Any:
    if not isinstance(body, Mapping):
        problems.append(f"{place or 'document'} must be an object")
        return None
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        where = f"{place}{field.name}"
        if field.name in body:
            values[field.name] = _decode(body[field.name], hints[field.name], where, problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where} is missing")
    if problems:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        problems.append(f"{place}{error}")
        return None


def _decode(value: Any, hint: Any, where: str, problems: list[str]) -> Any:  # noqa: PLR0911 - one return a kind
    origin = typing.get_origin(hint)
    if hint is Any:
        problems += (f"{place} is not finite" for place in _places_not_finite(value, where))
        return value
    if origin in (Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        return None if value is None else _decode(value, options[0], where, problems)
    if origin is tuple:
        if not isinstance(value, list):
            problems.append(f"{where} must be a list, not {type(value).__name__}")
            return None
        item_hint = typing.get_args(hint)[0]
        return tuple(_decode(item, item_hint, f"{where}[{index}]", problems) for index, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            problems.append(f"{where} must be an object, not {type(value).__name__}")
            return None
        item_hint = typing.get_args(hint)[1]
        return {key: _decode(item, item_hint, f"{where}.{key}", problems) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _decode_dataclass(value, hint, f"{where}.", problems)
    return _decode_scalar(value, hint, where, problems)


def _decode_scalar(value: Any, hint: type, where: str, problems: list[str]) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (hint is float or isinstance(value, float)) and not _is_finite(value):
        problems.append(f"{where} is not finite")
        return None
    if hint is float and is_number:
        return float(value)
    if hint is not float and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    if issubclass(hint, str) and isinstance(value, str):
        try:
            return hint(value)
        except ValueError:
            allowed = ", ".join(member.value for member in hint)  # type: ignore[attr-defined]  # only StrEnum comes here
            problems.append(f"{where} is {value[:80]!r}; allowed: {allowed}")
            return None
    problems.append(f"{where} must be of type {hint.__name__}, not {type(value).__name__}")
    return None


def _places_not_finite(value: Any, where: str) -> Iterator[str]:
    # Not by recursion: what the reader of JSON lets pass may be too deep for it.
    pending = [(where, value)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, Mapping):
            pending += ((f"{place}.{key}", inner) for key, inner in item.items())
        elif isinstance(item, list):
            pending += ((f"{place}[{index}]", inner) for index, inner in enumerate(item))
        elif isinstance(item, float) and not _is_finite(item):
            yield place


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float can hold
        return False
