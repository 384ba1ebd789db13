"""Evidence becomes a verdict (pure).

Comes in: ``Evidence``, everything that a finished attempt left behind, as ``container`` collects it, and the
``RunSpec`` it was started with. Goes out: an ``Outcome``: succeeded, or failed with a cause, a class, a retry decision
and a remedy, found by the first row of ``signatures.toml`` that fits. Next comes ``run_store``, then ``publishing``.
"""
