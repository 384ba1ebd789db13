"""Launch, follow, capture, evidence: how a trainer is run, whatever it runs in.

Comes in: a run directory with spec and snapshot, and an attempt's empty directory in it. Goes out: while it runs, its
events and its output; at the end, ``Evidence`` for ``outcome`` to judge. A runner is anything of the shape of
``Runner``; following and evidence rest on files and do not know which one it was.
"""
