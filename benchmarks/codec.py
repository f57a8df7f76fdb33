"""What reading and writing one object costs: `python -m benchmarks.codec`. Best of several runs, in µs, beside orjson alone."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable

import orjson

from clusterling.machinery import codec
from clusterling.packs import builtin

LOOPS = 5_000
RUNS = 7


def configmap() -> dict[str, object]:
    """A ConfigMap of about 1 KB, such as the server's own benchmarks write."""
    metadata = {
        "name": "benchmark",
        "namespace": "default",
        "resourceVersion": "4711",
        "labels": {"app.kubernetes.io/name": "benchmark", "tier": "backend"},
        "annotations": {"note": "x" * 40},
    }
    data = {f"key-{number}": "v" * 64 for number in range(10)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + _varint(number >> 7)


def _field(number: int, content: str | bytes) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def protobuf_body() -> bytes:
    """The same ConfigMap as kubectl sends it."""
    data = b"".join(_field(2, _field(1, f"key-{n}") + _field(2, "v" * 64)) for n in range(10))
    message = _field(1, _field(1, "benchmark") + _field(3, "default")) + data
    return b"k8s\x00" + _field(1, _field(1, "v1") + _field(2, "ConfigMap")) + _field(2, message)


def microseconds(work: Callable[[], object]) -> float:
    return min(timeit.repeat(work, number=LOOPS, repeat=RUNS)) / LOOPS * 1e6


def main() -> None:
    obj = configmap()
    compact, spaced = orjson.dumps(obj), json.dumps(obj).encode()
    stored = codec.encode_stored(obj)
    expected = codec.Expected("v1", "ConfigMap", typed=True)
    protobuf, reader = protobuf_body(), builtin.protobuf_codec()
    rows: list[tuple[str, Callable[[], object]]] = [
        ("orjson.loads", lambda: orjson.loads(compact)),
        ("decode_json, compact", lambda: codec.decode_json(compact, expected)),
        ("decode_json, spaced", lambda: codec.decode_json(spaced, expected)),
        ("protobuf", lambda: reader.decode(protobuf, expected)),
        ("orjson.dumps", lambda: orjson.dumps(obj)),
        ("encode_stored", lambda: codec.encode_stored(obj)),
        ("with_revision", lambda: codec.with_revision(stored, 4712)),
        ("with_api_version", lambda: codec.with_api_version(stored, "example.com/v2")),
        ("same_json", lambda: codec.same_json(obj, orjson.loads(stored))),
    ]
    print(f"one object of {len(compact)} bytes")
    for name, work in rows:
        print(f"{name:24}{microseconds(work):8.2f} µs")


if __name__ == "__main__":
    main()
