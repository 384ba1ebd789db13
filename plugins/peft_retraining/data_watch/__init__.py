"""How many new labelled rows there are, since when, and how to read them.

Comes in: settings, a database. Goes out: a window and a count; next comes ``snapshots``, which freezes the rows.
"""
