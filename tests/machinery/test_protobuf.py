"""Protobuf bodies. The golden pairs are upstream's own (k8s.io/api/testdata/HEAD), every kind of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.codec import Expected
from clusterling.machinery.errors import ApiError
from clusterling.machinery.protobuf import PREFIX, go_duration
from clusterling.packs import builtin
from clusterling.version import KUBERNETES
from tools import gomodules

# A watch event is an answer, never a body: it names no kind.
_NO_BODIES = frozenset(("core.v1.WatchEvent",))

CODEC = builtin.protobuf_codec()
CONFIGMAP = Expected("v1", "ConfigMap", typed=True)


def varint(number: int) -> bytes:
    found = bytearray()
    while True:
        found.append((number & 0x7F) | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(found)


def field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content & 0xFFFF_FFFF_FFFF_FFFF)
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def body(api_version: str, kind: str, message: bytes) -> bytes:
    return PREFIX + field(1, field(1, api_version) + field(2, kind)) + field(2, message)


def refused(content: bytes, expected: Expected = CONFIGMAP) -> ApiError:
    with pytest.raises(ApiError) as caught:
        CODEC.decode(content, expected)
    return caught.value


@pytest.fixture(scope="module")
def golden() -> Path:
    try:
        module = gomodules.directory("k8s.io/api", f"v0.{KUBERNETES.partition('.')[2]}")
    except gomodules.ModuleMissing as error:
        pytest.skip(f"upstream's golden files need the Go module k8s.io/api: {error}")
    return module / "testdata" / "HEAD"


def test_every_kind_of_upstreams_golden_files_reads_as_its_json(golden: Path) -> None:
    wrong, right = [], 0
    for path in sorted(golden.glob("*.pb")):
        if path.stem in _NO_BODIES:
            continue
        if CODEC.decode(path.read_bytes()) == json.loads(path.with_suffix(".json").read_text()):
            right += 1
        else:
            wrong.append(path.stem)
    assert wrong == []
    assert right >= 192


def test_a_configmap_reads_as_its_json() -> None:
    metadata = field(1, "name") + field(3, "ns") + field(8, b"") + field(11, field(1, "k") + field(2, "v"))
    message = field(1, metadata) + field(2, field(1, "a") + field(2, "1")) + field(4, 0)
    message += field(3, field(1, "b") + field(2, b"\xff\x00"))
    assert CODEC.decode(body("v1", "ConfigMap", message)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "name", "namespace": "ns", "labels": {"k": "v"}},
        "data": {"a": "1"},
        "immutable": False,
        "binaryData": {"b": "/wA="},
    }


def test_zero_is_kept_where_go_has_a_pointer_and_dropped_elsewhere() -> None:
    # DeploymentSpec: replicas is a pointer, minReadySeconds is not.
    obj = CODEC.decode(body("apps/v1", "Deployment", field(2, field(1, 0) + field(5, 0))))
    assert obj["spec"] == {"replicas": 0}


def test_negative_numbers_and_times_have_their_signs() -> None:
    lease = field(2, field(2, -5) + field(3, field(1, -1) + field(2, 500_000)))
    spec = CODEC.decode(body("coordination.k8s.io/v1", "Lease", lease))["spec"]
    assert spec == {"leaseDurationSeconds": -5, "acquireTime": "1969-12-31T23:59:59.000500Z"}


def test_years_have_four_digits_however_early() -> None:
    two_seconds_in = -62_135_596_798
    lease = field(1, field(8, field(1, two_seconds_in))) + field(2, field(3, field(1, two_seconds_in)))
    obj = CODEC.decode(body("coordination.k8s.io/v1", "Lease", lease))
    assert obj["metadata"]["creationTimestamp"] == "0001-01-01T00:00:02Z"
    assert obj["spec"]["acquireTime"] == "0001-01-01T00:00:02.000000Z"


def test_options_are_known_in_every_group_version() -> None:
    for api_version in ("v1", "apps/v1", "meta.k8s.io/v1"):
        obj = CODEC.decode(body(api_version, "DeleteOptions", field(4, "Orphan")))
        assert obj == {"apiVersion": api_version, "kind": "DeleteOptions", "propagationPolicy": "Orphan"}


def test_raw_extensions_hold_json_or_protobuf() -> None:
    inner = body("v1", "ConfigMap", field(1, field(1, "x")))
    for raw, data in (
        (b'{"a":[1]}', {"a": [1]}),
        (inner, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}),
    ):
        revision = body("apps/v1", "ControllerRevision", field(2, field(1, raw)) + field(3, 7))
        assert CODEC.decode(revision)["data"] == data


def test_fields_that_come_in_pieces_are_merged() -> None:
    message = field(1, field(1, "x")) + field(1, field(3, "ns"))
    assert CODEC.decode(body("v1", "ConfigMap", message))["metadata"] == {"name": "x", "namespace": "ns"}


def test_unknown_fields_are_passed_over() -> None:
    message = field(1, field(1, "x")) + field(99, "?") + field(98, 3) + varint(97 << 3 | 5) + b"1234"
    assert CODEC.decode(body("v1", "ConfigMap", message))["metadata"] == {"name": "x"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty data"),
        (b"k8s\x00", "empty body"),
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (PREFIX + b"\x0a\x7f", "unexpected EOF"),
    ],
)
def test_what_is_no_envelope_gets_upstreams_message(content: bytes, problem: str) -> None:
    error = refused(content)
    assert error.code == 400
    assert error.message.startswith(
        f"the object provided is unrecognized (must be of type ConfigMap): {problem} ("
    )


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\x0a\x05abc", "unexpected EOF"),
        (b"\x0b", "proto: illegal wireType 3"),
        (b"\x80" * 11, "proto: integer overflow"),
        (field(1, 3), "proto: wrong wireType = 0 for field metadata"),
        (field(1, field(1, 3)), "proto: wrong wireType = 0 for field name"),
        (field(1, field(8, field(1, 1 << 62))), "Time.MarshalJSON: year outside of range [0,9999]"),
        (b"\x02\x00", "proto: ConfigMap: illegal tag 0 (wire type 2)"),
    ],
)
def test_a_broken_message_is_a_bad_request(message: bytes, problem: str) -> None:
    error = refused(body("v1", "ConfigMap", message))
    assert error.code == 400
    assert error.message == f'ConfigMap in version "v1" cannot be handled as a ConfigMap: {problem}'


def test_a_kind_without_a_table_is_a_bad_request() -> None:
    error = refused(body("example.com/v1", "Widget", b""), Expected("example.com/v1", "Widget"))
    assert error.code == 400
    assert error.message.startswith('no kind "Widget" is registered for version "example.com/v1"')


def test_recursion_is_bounded() -> None:
    # A JSONSchemaProps within a JSONSchemaProps …: field 28 is `not`.
    schema = b""
    for _ in range(5000):
        schema = field(28, schema) if len(schema) < 60_000 else schema
    version = field(1, "v1") + field(4, field(1, schema))
    error = refused(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))
    assert error.code == 400
    assert "nested deeper than" in error.message


def test_many_small_fields_are_refused() -> None:
    error = refused(body("v1", "ConfigMap", field(99, 1) * 600_000))
    assert error.code == 413


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_bytes_are_an_object_or_an_error_for_the_client(message: bytes) -> None:
    for kind in ("ConfigMap", "Pod", "Event"):
        try:
            assert CODEC.decode(body("v1", kind, message))["kind"] == kind
        except ApiError as error:
            assert error.code in (400, 413)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (2_000_000, "2ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (3_723_500_000_000, "1h2m3.5s"),
        (-90_000_000_000, "-1m30s"),
    ],
)
def test_durations_print_as_gos(nanoseconds: int, text: str) -> None:
    assert go_duration(nanoseconds) == text
