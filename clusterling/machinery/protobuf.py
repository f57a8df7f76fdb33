"""Protobuf bodies of built-in kinds, read into the objects that their JSON would be.

kubectl, helm and every Go controller send built-in kinds as `application/vnd.kubernetes.protobuf` and do not fall
back; answers may be JSON, so only reading is needed. A body is `k8s\\0` and a runtime.Unknown that names the kind and
holds the message. Messages are read straight from the wire by tables (tools/protobuf_tables.py says how they look
and are made): no generated code, no descriptor pool, nothing to import. The types that
Go writes in a form of its own (Time, Quantity, IntOrString, RawExtension …) have a function each in `_SPECIAL`.

Upstream: apimachinery/pkg/runtime/serializer/protobuf/protobuf.go; https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from clusterling.machinery import strictjson
from clusterling.machinery.codec import (
    ANYTHING,
    Expected,
    as_object,
    cannot_be_handled,
    check_depth,
    parse_json,
    unrecognized,
)
from clusterling.machinery.codec import (
    DEPTH_MAX as JSON_DEPTH_MAX,
)
from clusterling.machinery.errors import bad_request, too_large
from clusterling.machinery.meta import GroupVersion, Object

PREFIX: Final = b"k8s\x00"
DEPTH_MAX: Final = 100
NESTED_LEVELS: Final = (
    20  # That an object within an object counts for: each one holds what is in it once more.
)
FIELDS_MAX: Final = 500_000
PLAIN_FIELDS_MAX: Final = 64  # Of an envelope, a time, a quantity: messages of two or three.

# message name → field number → (JSON name, type, how it is held); see tools/protobuf_tables.py.
MessageTable = Mapping[str, Mapping[str, "list[str]"]]

_META: Final = "k8s.io.apimachinery.pkg.apis.meta.v1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class WireError(ValueError):
    """The bytes are no protobuf message, in the words of gogo's generated code."""


class _Field:
    """A field as the decoder wants it: looked up once, used for every message."""

    __slots__ = ("held", "kind", "message", "name", "zero")

    def __init__(self, name: str, kind: str, held: str) -> None:
        self.name = name
        self.kind = kind
        self.held = held
        self.message = kind.startswith(".")
        self.zero = _ZEROES.get(kind)


_ZEROES: Final[Mapping[str, object]] = {
    "string": "", "bytes": "", "bool": False, "int32": 0, "int64": 0, "double": 0.0,
}  # fmt: skip


class ProtobufCodec:
    """Reads bodies of every kind there is a table for. Tables are asked for by package, at first use.

    `packages` maps an apiVersion to its proto package; `table_of` gives a package's table.
    """

    def __init__(self, packages: Mapping[str, str], table_of: Callable[[str], MessageTable]) -> None:
        self._packages = packages
        self._table_of = table_of
        self._messages: dict[str, dict[int, _Field] | None] = {}

    def decode(self, body: bytes, expected: Expected = ANYTHING) -> Object:
        """The object in a request's body. Raises ApiError: 400 in upstream's words, 413 for too many fields."""
        try:
            api_version, kind, raw = self._envelope(body)
            api_version, kind = api_version or expected.api_version, kind or expected.kind
            obj: Object = {"apiVersion": api_version, "kind": kind}
            as_object(obj, body, expected)
            name = self._message_name(api_version, kind)
        except WireError as error:
            raise unrecognized(str(error), body, expected) from error
        try:
            obj.update(_Reader(self, raw).message(name, 0, len(raw), 0))
        except WireError as error:
            raise cannot_be_handled(kind, api_version, expected.kind or kind, str(error)) from error
        return obj

    def _envelope(self, body: bytes) -> tuple[str, str, bytes]:
        if not body:
            raise WireError("empty data")
        if not body.startswith(PREFIX):
            raise WireError(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
            )
        if len(body) == len(PREFIX):
            raise WireError("empty body")
        return envelope(body, len(PREFIX))

    def _message_name(self, api_version: str, kind: str) -> str:
        package = self._packages.get(api_version, "")
        # DeleteOptions and its like are registered in every group-version (metav1.AddToGroupVersion).
        for candidate in (package, _META):
            if candidate and self.fields(f".{candidate}.{kind}") is not None:
                return f".{candidate}.{kind}"
        group_version = GroupVersion.parse(api_version)
        raise bad_request(
            f'no kind "{kind}" is registered for version "{group_version}" in scheme '
            '"pkg/api/legacyscheme/scheme.go:30"'
        )

    def fields(self, name: str) -> dict[int, _Field] | None:
        """The fields of a message (`.package.Name`), None where there is none of that name."""
        try:
            return self._messages[name]
        except KeyError:
            package, _, message = name[1:].rpartition(".")
            known = message in (table := self._table_of(package))
            fields = (
                {int(number): _Field(*field) for number, field in table[message].items()} if known else None
            )
            if len(self._messages) < 10_000 and (known or package in self._packages.values()):
                self._messages[name] = fields
            return fields


def envelope(body: bytes, at: int) -> tuple[str, str, bytes]:
    """(apiVersion, kind, raw message) of a runtime.Unknown. Raises WireError."""
    api_version = kind = ""
    raw = b""
    for number, value in _plain_fields(body, at, len(body)):
        if number == 1 and isinstance(value, bytes):
            for inner, text in _plain_fields(value, 0, len(value)):
                if isinstance(text, bytes) and inner == 1:
                    api_version = text.decode("utf-8", "replace")
                elif isinstance(text, bytes) and inner == 2:
                    kind = text.decode("utf-8", "replace")
        elif number == 2 and isinstance(value, bytes):
            raw = value
    return api_version, kind, raw


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= end:
            raise WireError("unexpected EOF")
        if shift >= 64:
            raise WireError("proto: integer overflow")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def _value(data: bytes, at: int, end: int, wire: int) -> tuple[int, int, int]:
    """(number or -1, start, end) of the value at `at`: a varint's number, or the range of anything else."""
    if wire == 0:
        number, after = _varint(data, at, end)
        return number, after, after
    if wire == 2:
        length, at = _varint(data, at, end)
        after = at + length
    elif wire == 1:
        after = at + 8
    elif wire == 5:
        after = at + 4
    else:
        raise WireError(f"proto: illegal wireType {wire}")
    if after > end:
        raise WireError("unexpected EOF")
    return -1, at, after


def _plain_fields(data: bytes, at: int, end: int) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    while at < end:
        tag, at = _varint(data, at, end)
        number, start, at = _value(data, at, end, tag & 7)
        found.append((tag >> 3, data[start:at] if number < 0 else number))
        if len(found) > PLAIN_FIELDS_MAX:
            raise WireError(f"proto: more than {PLAIN_FIELDS_MAX} fields in a message of a few")
    return found


class _Reader:
    """One body being read. `fields_left` bounds what it may cost."""

    def __init__(self, codec: ProtobufCodec, data: bytes) -> None:
        self.codec = codec
        self.data = data
        self.fields_left = FIELDS_MAX

    def message(self, name: str, at: int, end: int, depth: int, into: Object | None = None) -> Any:
        """The message of type `name` in data[at:end], added to `into` where a field comes in pieces."""
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, at, end, depth)
        if depth > DEPTH_MAX:
            raise WireError(f"proto: nested deeper than {DEPTH_MAX} levels")
        fields = self.codec.fields(name)
        assert fields is not None, f"a table names {name}, so there is a table for it"
        found: Object = {} if into is None else into
        data = self.data
        while at < end:
            tag, at = _varint(data, at, end)
            self.count()
            number, start, at = _value(data, at, end, tag & 7)
            field = fields.get(tag >> 3)
            if tag < 8:
                raise WireError(f"proto: {name.rpartition('.')[2]}: illegal tag {tag >> 3} (wire type {tag})")
            if field is None:
                continue
            if field.held == "l":
                found.setdefault("", []).append(self.value(field, number, start, at, depth))
            else:
                self.put(found, field, number, start, at, depth)
        if "" in found or (fields and next(iter(fields.values())).held == "l"):
            return found.get("", [])
        return found

    def count(self) -> None:
        """Another field. Raises ApiError 413 where there are too many."""
        self.fields_left -= 1
        if self.fields_left < 0:
            raise too_large(f"more than {FIELDS_MAX} protobuf fields")

    def put(self, found: Object, field: _Field, number: int, start: int, end: int, depth: int) -> None:
        held, name = field.held, field.name
        if number >= 0 and (field.message or held == "m"):
            raise WireError(f"proto: wrong wireType = 0 for field {name}")
        if held == "r":
            items = found.setdefault(name, [])
            if number < 0 and field.kind in ("int32", "int64", "bool"):
                self.packed(items, field, start, end)
            else:
                items.append(self.value(field, number, start, end, depth))
        elif held == "m":
            self.entry(found.setdefault(name, {}), field, start, end, depth)
        elif held == "i":
            self.message(field.kind, start, end, depth + 1, found)
        elif field.message:
            before = found.get(name)
            value = self.message(
                field.kind, start, end, depth + 1, before if isinstance(before, dict) else None
            )
            if value is not None and not (held == "z" and value == {}):
                found[name] = value
        else:
            value = self.value(field, number, start, end, depth)
            if held == "k" or value != field.zero:
                found[name] = value
            else:
                found.pop(name, None)

    def entry(self, found: Object, field: _Field, start: int, end: int, depth: int) -> None:
        key = ""
        value: Any = self.message(field.kind, start, start, depth + 1) if field.message else field.zero
        at = start
        while at < end:
            tag, at = _varint(self.data, at, end)
            self.count()
            number, begin, at = _value(self.data, at, end, tag & 7)
            if tag >> 3 == 1 and number < 0:
                key = self.text(begin, at)
            elif tag >> 3 == 2:
                value = self.value(field, number, begin, at, depth)
        found[key] = value

    def value(self, field: _Field, number: int, start: int, end: int, depth: int) -> Any:
        kind = field.kind
        if field.message or kind in ("string", "bytes"):
            if number >= 0:
                raise WireError(f"proto: wrong wireType = 0 for field {field.name}")
            if field.message:
                return self.message(kind, start, end, depth + 1)
            return (
                self.text(start, end) if kind == "string" else base64.b64encode(self.data[start:end]).decode()
            )
        if kind == "double":
            if end - start != 8:
                raise WireError(f"proto: wrong wireType for field {field.name}")
            return float(struct.unpack_from("<d", self.data, start)[0])
        if number < 0:
            raise WireError(f"proto: wrong wireType = 2 for field {field.name}")
        return _number(kind, number)

    def packed(self, items: list[Any], field: _Field, start: int, end: int) -> None:
        while start < end:
            number, start = _varint(self.data, start, end)
            self.count()
            items.append(_number(field.kind, number))

    def text(self, start: int, end: int) -> str:
        return self.data[start:end].decode("utf-8", "clusterling.go")

    def plain(self, at: int, end: int) -> dict[int, int | bytes]:
        """The fields of a small message of scalars, by number; the last of each."""
        return dict(_plain_fields(self.data[at:end], 0, end - at))


def _number(kind: str, number: int) -> int | bool:
    if kind == "bool":
        return number != 0
    if kind == "int32":
        number &= 0xFFFF_FFFF
        return number - (1 << 32) if number >= 1 << 31 else number
    return number - (1 << 64) if number >= 1 << 63 else number


def _signed(value: int | bytes | None) -> int:
    return int(_number("int64", value)) if isinstance(value, int) else 0


def _moment(fields: dict[int, int | bytes]) -> datetime:
    try:
        return _EPOCH + timedelta(seconds=_signed(fields.get(1)), microseconds=_signed(fields.get(2)) // 1000)
    except OverflowError as error:
        raise WireError("Time.MarshalJSON: year outside of range [0,9999]") from error


def _time(reader: _Reader, at: int, end: int, _depth: int) -> str | None:
    # An empty message is Go's zero time, which JSON leaves out (meta/v1/time_proto.go).
    return _written(reader, at, end, "seconds") if end > at else None


def _micro_time(reader: _Reader, at: int, end: int, _depth: int) -> str | None:
    return _written(reader, at, end, "microseconds") if end > at else None


def _written(reader: _Reader, at: int, end: int, timespec: str) -> str:
    # Not strftime: it does not pad years below 1000.
    return _moment(reader.plain(at, end)).replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def _duration(reader: _Reader, at: int, end: int, _depth: int) -> str:
    return go_duration(_signed(reader.plain(at, end).get(1)))


def go_duration(nanoseconds: int) -> str:
    """A duration as Go's time.Duration prints it: `1h2m3.5s`, `1.5ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1000:
            return f"{sign}{_decimal(rest, size)}{unit}"
    minutes, seconds = divmod(rest, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, 1_000_000_000)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    return f"{whole}.{str(part).zfill(len(str(unit)) - 1).rstrip('0')}" if part else str(whole)


def _quantity(reader: _Reader, at: int, end: int, _depth: int) -> str:
    text = reader.plain(at, end).get(1)
    return text.decode("utf-8", "replace") if isinstance(text, bytes) and text else "0"


def _int_or_string(reader: _Reader, at: int, end: int, _depth: int) -> int | str:
    fields = reader.plain(at, end)
    if _signed(fields.get(1)) == 0:
        number = fields.get(2)
        return int(_number("int32", number)) if isinstance(number, int) else 0
    text = fields.get(3)
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else ""


def _raw_json(reader: _Reader, at: int, end: int, depth: int) -> Any:
    raw = reader.plain(at, end).get(1)
    if not isinstance(raw, bytes) or not raw:
        return None
    if raw.startswith(PREFIX):
        return _nested(reader, raw, depth + NESTED_LEVELS)
    try:
        value = parse_json(raw)[0]
    except strictjson.JsonError as error:
        raise WireError(str(error)) from error
    # A message in a map is two levels of JSON: below many, JSON as deep as it may be alone could not be written.
    check_depth(value, max(JSON_DEPTH_MAX - 2 * depth, 1))
    return value


def _nested(reader: _Reader, raw: bytes, depth: int) -> Object:
    """An object within a RawExtension, itself in protobuf (runtime/extension.go, RawExtension.MarshalJSON)."""
    if depth > DEPTH_MAX:
        raise WireError(f"proto: nested deeper than {DEPTH_MAX} levels")
    api_version, kind, inner = envelope(raw, len(PREFIX))
    name = reader.codec._message_name(api_version, kind)
    other = _Reader(reader.codec, inner)
    other.fields_left = reader.fields_left
    nested: Object = {
        "apiVersion": api_version,
        "kind": kind,
        **other.message(name, 0, len(inner), depth + 1),
    }
    reader.fields_left = other.fields_left
    return nested


def _schema_or(choose: str, number: int) -> Callable[[_Reader, int, int, int], Any]:
    """JSONSchemaPropsOrBool and its siblings: field 1 or 2 is a schema, the other what it may be instead."""

    def read(reader: _Reader, at: int, end: int, depth: int) -> Any:
        package = choose.rpartition(".")[0]
        schema = _Field("schema", f"{package}.JSONSchemaProps", "")
        rest: list[Any] = []
        found: Any = None
        allows = False
        while at < end:
            tag, at = _varint(reader.data, at, end)
            reader.count()
            value, start, at = _value(reader.data, at, end, tag & 7)
            field = tag >> 3
            if field == number:
                found = reader.value(schema, value, start, at, depth)
            elif choose.endswith("OrArray"):
                rest.append(reader.value(schema, value, start, at, depth))
            elif choose.endswith("OrBool"):
                allows = value != 0
            else:
                rest.append(reader.text(start, at))
        if found is not None:
            return found
        return allows if choose.endswith("OrBool") else rest or None

    return read


_SPECIAL: Final[dict[str, Callable[[_Reader, int, int, int], Any]]] = {
    f".{_META}.Time": _time,
    f".{_META}.MicroTime": _micro_time,
    f".{_META}.Duration": _duration,
    f".{_META}.FieldsV1": _raw_json,
    ".k8s.io.apimachinery.pkg.api.resource.Quantity": _quantity,
    ".k8s.io.apimachinery.pkg.api.resource.QuantityValue": _quantity,
    ".k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    ".k8s.io.apimachinery.pkg.runtime.RawExtension": _raw_json,
}
for _version in ("v1", "v1beta1"):
    _package = f".k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.{_version}"
    _SPECIAL[f"{_package}.JSON"] = _raw_json
    _SPECIAL[f"{_package}.JSONSchemaPropsOrArray"] = _schema_or(f"{_package}.JSONSchemaPropsOrArray", 1)
    _SPECIAL[f"{_package}.JSONSchemaPropsOrBool"] = _schema_or(f"{_package}.JSONSchemaPropsOrBool", 2)
    _SPECIAL[f"{_package}.JSONSchemaPropsOrStringArray"] = _schema_or(
        f"{_package}.JSONSchemaPropsOrStringArray", 1
    )
