"""Everything that can be checked before a GPU is taken, in one report with all findings.

Comes in: a run directory with spec and snapshot. Goes out: findings, each with code, severity, evidence and remedy;
any error stops the run. The trainer's environment checks itself; next comes ``container``'s training start.
"""
