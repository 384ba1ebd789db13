"""The version of the contract, and who can read whom."""

from __future__ import annotations

from training_contract.errors import ContractVersionError

CONTRACT_VERSION = "1.0"


def check_contract_version(found: object, *, document: str) -> None:
    """Refuse a document that was written under another major version of the contract.

    Args:
        found: The ``contract_version`` that the document carries, for example ``"1.0"``.
        document: What was read, for the message; a file name is best.

    Raises:
        ContractVersionError: The major numbers differ, or the version cannot be read.
    """
    expected_major = CONTRACT_VERSION.split(".", 1)[0]
    if not isinstance(found, str) or found.split(".", 1)[0] != expected_major:
        raise ContractVersionError(document=document, found=found, expected=CONTRACT_VERSION)
