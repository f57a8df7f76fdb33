"""The stores' own PostgreSQL, for those who need no server of their own."""

from __future__ import annotations

from tests.storage.conftest import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]  # Fixtures.
