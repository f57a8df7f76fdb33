"""Protobuf by hand, as far as the rows need it: a few fields written, any message taken apart.

Written for the checks alone: they are to notice what the server's own reader and writer agree on and get wrong.
Wire format: https://protobuf.dev/programming-guides/encoding/; the envelope: k8s.io/apimachinery runtime.Unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\0"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def message(*fields: tuple[int, str | bytes | int]) -> bytes:
    """Fields by number, in the order given; text and submessages by length, numbers as varints."""
    return b"".join(_field(number, value) for number, value in fields)


def enveloped(api_version: str, kind: str, body: bytes) -> bytes:
    """An object as client-go sends it."""
    return MAGIC + message((1, message((1, api_version), (2, kind))), (2, body))


def fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message in order. Raises ValueError where it is none."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("field number 0")
        if kind == _VARINT:
            value, position = _varint(content, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(content, position)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(content):
            raise ValueError("a field goes beyond the end")
        yield number, content[position : position + size]
        position += size


def _field(number: int, value: str | bytes | int) -> bytes:
    if isinstance(value, int):
        return _encoded(number << 3 | _VARINT) + _encoded(value)
    content = value.encode() if isinstance(value, str) else value
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content) and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a varint without an end")
