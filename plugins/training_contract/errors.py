"""What can be wrong with a document of the contract.

::

    ContractError
    |-- ContractVersionError     another major version wrote it
    |-- DocumentUnreadable       missing, not JSON, not an object
    `-- DocumentInvalid          JSON, but fields are missing or of the wrong type
"""

from __future__ import annotations

from collections.abc import Sequence


class ContractError(Exception):
    """A document of the run directory breaks the contract."""


class ContractVersionError(ContractError):
    """The document was written under another major version of the contract."""

    def __init__(self, *, document: str, found: object, expected: str) -> None:
        self.document = document
        self.found = found
        self.expected = expected
        super().__init__(
            f"{document} was written under contract version {found!r}; this side speaks {expected}. "
            "Install the same release of airflow-peft-retraining and of the trainer."
        )


class DocumentUnreadable(ContractError):
    """The document is missing, is not JSON, or is not a JSON object."""

    def __init__(self, *, document: str, problem: str) -> None:
        self.document = document
        self.problem = problem
        super().__init__(f"{document} cannot be read: {problem}")


class DocumentInvalid(ContractError):
    """The document is JSON, but its fields are not those of the contract; all problems are told at once."""

    def __init__(self, *, document: str, problems: Sequence[str]) -> None:
        self.document = document
        self.problems = tuple(problems)
        super().__init__(f"{document} is not valid: " + "; ".join(self.problems))
