"""Uids: random UUIDs of version 4, made many at a time: one system call and one look at its digits."""

from __future__ import annotations

import re
import secrets
from typing import Final

_AT_ONCE: Final = 256
_PARTS: Final = re.compile("(.{8})(.{4}).(.{3})(.)(.{3})(.{12})")
_VARIANTS: Final = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}
_pool: Final[list[str]] = []


def new_uid() -> str:
    """A uid that no object has had."""
    if not _pool:
        found = _PARTS.findall(secrets.token_hex(16 * _AT_ONCE))
        # Version and variant are set (RFC 9562, 5.4).
        _pool.extend([f"{a}-{b}-4{c}-{_VARIANTS[d]}{e}-{f}" for a, b, c, d, e, f in found])
    return _pool.pop()
