"""Alembic's scripts: how each release's tables become the next one's. There is no way back but a backup."""
