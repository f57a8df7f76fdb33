"""What ConfigMaps and Secrets share: maps of named bytes, bounded, base64 as Go reads it, immutable on request.

Upstream: kubernetes pkg/apis/core/validation/validation.go (ValidateConfigMap, ValidateSecret and their updates),
encoding/base64 for the texts of what is not base64.
"""

from __future__ import annotations

import base64
from typing import Final

from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_config_map_key
from clusterling.registry.receiving import Undecodable

CONTENT_BYTES_MAX: Final = 1024 * 1024  # core.MaxSecretSize

_IMMUTABLE: Final = "field is immutable when `immutable` is set"
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


def read_bytes(obj: Object, field: str) -> None:
    """Rewrites a map of base64 texts in the one form that Go writes. Raises ApiError 400 for what is not base64."""
    values = obj.get(field)
    if not values:
        return
    for key, text in values.items():
        try:
            values[key] = canonical_base64(text)
        except ValueError as error:
            raise Undecodable(obj["kind"], obj["apiVersion"], str(error)) from error


def canonical_base64(text: str) -> str:
    """The same bytes in standard base64. Raises ValueError in Go's words (`illegal base64 data at input byte 4`)."""
    # Python's strict decoder still takes padding that nothing asks for.
    if len(text) % 4 == 0 and not text.endswith("==="):
        try:
            return base64.b64encode(base64.b64decode(text, validate=True)).decode()
        except ValueError:
            pass
    return base64.b64encode(base64.b64decode(_without_newlines(text))).decode()


def _without_newlines(text: str) -> str:
    """Checks as Go's decoder does, which skips line ends, and names the byte where it stops."""
    data = text.encode()
    kept = bytearray()
    for at, byte in enumerate(data):
        if byte in b"\r\n":
            continue
        if byte == 0x3D:  # =
            _check_padding(data, at, len(kept) % 4)
            return (kept + b"=" * (-len(kept) % 4)).decode()
        if chr(byte) not in _ALPHABET:
            raise ValueError(f"illegal base64 data at input byte {at}")
        kept.append(byte)
    left = len(kept) % 4
    if left:
        raise ValueError(f"illegal base64 data at input byte {len(data) - left}")
    return kept.decode()


def _check_padding(data: bytes, at: int, digits: int) -> None:
    if digits < 2:
        raise ValueError(f"illegal base64 data at input byte {at}")
    after = at + 1
    if digits == 2:
        after = _skip_newlines(data, after)
        if after == len(data):
            raise ValueError(f"illegal base64 data at input byte {after}")
        if data[after] != 0x3D:
            raise ValueError(f"illegal base64 data at input byte {after - 1}")
        after += 1
    after = _skip_newlines(data, after)
    if after < len(data):
        raise ValueError(f"illegal base64 data at input byte {after}")


def _skip_newlines(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in b"\r\n":
        at += 1
    return at


def decoded_bytes(text: str) -> int:
    """How many bytes a canonical base64 text holds."""
    return len(text) // 4 * 3 - text.count("=", -2)


def key_problems(values: Object, field: str) -> list[FieldError]:
    """What is wrong with the keys of `data` or `binaryData`, in key order."""
    wrong = {key: problems for key in values if (problems := is_config_map_key(key))}
    return [invalid_value(f"{field}[{key}]", key, problem) for key in sorted(wrong) for problem in wrong[key]]


def immutable_problems(new: Object, old: Object, fields: tuple[str, ...]) -> list[FieldError]:
    """What an update changes of an object that says it is immutable."""
    if old.get("immutable") is not True:
        return []
    found = [] if new.get("immutable") is True else [forbidden_field("immutable", _IMMUTABLE)]
    changed = [field for field in fields if (new.get(field) or {}) != (old.get(field) or {})]
    return found + [forbidden_field(field, _IMMUTABLE) for field in changed]
