"""Objects' metadata, and what goes with it, as protobuf: what clients of PartialObjectMetadata ask for before JSON.

Go's metadata client (informers of controllers that need no more of an object) tells the two apart: items of a list say what they
are in JSON and do not in protobuf, so what it lists and what it watches are equal only where both are protobuf. Messages of objects
themselves are only read (machinery/protobuf.py).

Upstream: k8s.io/apimachinery pkg/apis/meta/v1/generated.proto, pkg/runtime/generated.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.protobuf import PREFIX
from clusterling.machinery.protowire import content, integer

_Write = Callable[[Any], bytes]


def partial_object(version: str, metadata: Object) -> bytes:
    """A PartialObjectMetadata of meta.k8s.io/`version`, in its envelope."""
    return unknown(f"meta.k8s.io/{version}", "PartialObjectMetadata", _partial(metadata))


def partial_item(metadata: Object) -> bytes:
    """An object's metadata as an item of `partial_list`."""
    return content(2, _partial(metadata))


def partial_list(version: str, metadata: Object, items: Iterable[bytes]) -> bytes:
    """A PartialObjectMetadataList; `items` are made by `partial_item`."""
    raw = b"".join((content(1, _LIST_META(metadata)), *items))
    return unknown(f"meta.k8s.io/{version}", "PartialObjectMetadataList", raw)


def status(told: Object) -> bytes:
    """A Status, in its envelope."""
    return unknown("v1", "Status", _STATUS(told))


def watch_event(event_type: str, obj: bytes) -> bytes:
    """A WatchEvent around an object in its envelope. It has none itself: a stream's type says what comes."""
    return content(1, event_type.encode()) + content(2, content(1, obj))


def unknown(api_version: str, kind: str, raw: bytes) -> bytes:
    """A message in the envelope that says what it is (runtime.Unknown)."""
    type_meta = content(1, api_version.encode()) + content(2, kind.encode())
    # Upstream's two empty fields, encoding and type of the content, are told too.
    return PREFIX + content(1, type_meta) + content(2, raw) + content(3, b"") + content(4, b"")


def _partial(metadata: Object) -> bytes:
    return content(1, _OBJECT_META(metadata))


# ---------------------------------------------------------------------- fields, by how Go writes them


def _text(number: int) -> _Write:
    """Of a string that is there even if it is empty."""
    return lambda value: content(number, str(value or "").encode())


def _texts(number: int) -> _Write:
    write = _text(number)
    return lambda value: b"".join(write(one) for one in value or ())


def _integer(number: int) -> _Write:
    return lambda value: integer(number, int(value or 0))


def _if_set(write: _Write) -> _Write:
    """Of a pointer, which may be nil."""
    return lambda value: b"" if value is None else write(value)


def _message(number: int, message: _Write) -> _Write:
    return lambda value: content(number, message(value))


def _messages(number: int, message: _Write) -> _Write:
    return lambda value: b"".join(content(number, message(one)) for one in value or ())


def _map(number: int) -> _Write:
    key, text = _text(1), _text(2)
    return lambda value: b"".join(
        content(number, key(name) + text(value[name])) for name in sorted(value or {})
    )


def _time(value: str | None) -> bytes:
    if not value:
        return b""
    return integer(1, int(datetime.fromisoformat(value).timestamp())) + integer(2, 0)


def _fields_v1(value: Any) -> bytes:
    return content(1, orjson.dumps(value))


def _struct(fields: Mapping[str, _Write]) -> _Write:
    def write(value: Object) -> bytes:
        return b"".join(field(value.get(name)) for name, field in fields.items())

    return write


_LIST_META: Final = _struct(
    {
        "selfLink": _text(1),
        "resourceVersion": _text(2),
        "continue": _text(3),
        "remainingItemCount": _if_set(_integer(4)),
        "shardInfo": _if_set(_message(5, _struct({"selector": _text(1)}))),
    }
)

_OBJECT_META: Final = _struct(
    {
        "name": _text(1),
        "generateName": _text(2),
        "namespace": _text(3),
        "selfLink": _text(4),
        "uid": _text(5),
        "resourceVersion": _text(6),
        "generation": _integer(7),
        "creationTimestamp": _message(8, _time),
        "deletionTimestamp": _if_set(_message(9, _time)),
        "deletionGracePeriodSeconds": _if_set(_integer(10)),
        "labels": _map(11),
        "annotations": _map(12),
        "ownerReferences": _messages(
            13,
            _struct(
                {
                    "kind": _text(1),
                    "name": _text(3),
                    "uid": _text(4),
                    "apiVersion": _text(5),
                    "controller": _if_set(_integer(6)),
                    "blockOwnerDeletion": _if_set(_integer(7)),
                }
            ),
        ),
        "finalizers": _texts(14),
        "managedFields": _messages(
            17,
            _struct(
                {
                    "manager": _text(1),
                    "operation": _text(2),
                    "apiVersion": _text(3),
                    "time": _if_set(_message(4, _time)),
                    "fieldsType": _text(6),
                    "fieldsV1": _if_set(_message(7, _fields_v1)),
                    "subresource": _text(8),
                }
            ),
        ),
    }
)

_STATUS: Final = _struct(
    {
        "metadata": lambda value: content(1, _LIST_META(value or {})),
        "status": _text(2),
        "message": _text(3),
        "reason": _text(4),
        "details": _if_set(
            _message(
                5,
                _struct(
                    {
                        "name": _text(1),
                        "group": _text(2),
                        "kind": _text(3),
                        "causes": _messages(
                            4, _struct({"reason": _text(1), "message": _text(2), "field": _text(3)})
                        ),
                        "retryAfterSeconds": _integer(5),
                        "uid": _text(6),
                    }
                ),
            )
        ),
        "code": _integer(6),
    }
)
