"""How a database is named in messages: where it is, and no secret of it."""

from __future__ import annotations

from sqlalchemy.engine import URL


def shown_address(url: URL) -> str:
    """Return a database's address without password and without options, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)
