"""Uids: random UUIDs of version 4, whose randomness is fetched for many at a time: the system call costs more than the rest."""

from __future__ import annotations

import secrets
from typing import Final

_AT_ONCE: Final = 256
_pool: Final[list[str]] = []


def new_uid() -> str:
    """A uid that no object has had."""
    if not _pool:
        digits = secrets.token_hex(16 * _AT_ONCE)
        _pool.extend(_uuid4(digits[start : start + 32]) for start in range(0, len(digits), 32))
    return _pool.pop()


def _uuid4(digits: str) -> str:
    """32 hex digits as a UUID, with version and variant set (RFC 9562, 5.4)."""
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
