"""Protobuf's wire, to write: a message is a run of fields, each a number, a way of writing, and what is written.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from typing import Final

_VARINT: Final = 0
_DOUBLE: Final = 1
_BYTES: Final = 2
_MASK: Final = (1 << 64) - 1  # Negative numbers are written as Go writes them, in two's complement.


def _varint(number: int) -> bytes:
    number &= _MASK
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def content(field: int, value: bytes) -> bytes:
    """Bytes, the UTF-8 of a text, or a whole message."""
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def integer(field: int, value: int) -> bytes:
    """An integer of any size, a boolean, or an enumeration."""
    return _varint(field << 3 | _VARINT) + _varint(value)


def double(field: int, value: float) -> bytes:
    return _varint(field << 3 | _DOUBLE) + struct.pack("<d", value)
