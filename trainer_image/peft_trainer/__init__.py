"""The trainer: reads a run directory, trains an adapter, leaves its evidence there."""

from __future__ import annotations

__version__ = "0.1.0"
