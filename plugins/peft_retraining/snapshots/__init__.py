"""The rows of a window, judged, split and frozen, with a digest.

Comes in: rows of the labelled table. Goes out: ``snapshot/`` in the run directory; next comes ``run_planning``.
"""
