"""Fixtures of the Airflow side's tests."""

from __future__ import annotations

from postgresql_server import postgresql_database_url, postgresql_url

__all__ = ["postgresql_database_url", "postgresql_url"]
