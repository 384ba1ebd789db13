"""Snapshot and settings become a run spec (pure).

Comes in: the settings of a run, the manifest of its frozen rows, what preflight found out about the base model. Goes
out: the ``RunSpec`` that the trainer reads; next comes ``preflight``, which has it checked, then ``container``.
"""
