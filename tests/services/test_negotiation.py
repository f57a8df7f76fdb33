"""What clients get for their Accept headers, and how bodies are read. The expectations were seen on a kube-apiserver 1.37."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterling.machinery import metaproto
from clusterling.machinery.errors import ApiError
from clusterling.machinery.yaml import parse_yaml
from clusterling.registry.listing import Listing
from clusterling.services.negotiation import (
    CLAUSES_MAX,
    METADATA_FORMS,
    NO_FORMS,
    PRETTY_BYTES_MAX,
    YAML_BYTES_MAX,
    Encoding,
    Framing,
    accept,
    accept_anyway,
    body_type,
    decode_body,
    include_object,
    parse_accept,
    wants_pretty,
)
from tests.services import kinds

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
JSON = "application/json"
YAML = "application/yaml"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
TABLE_BETA = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PROTOBUF = "application/vnd.kubernetes.protobuf"

WIDGETS = kinds.served(kinds.widgets())
CONFIGMAPS = kinds.served(kinds.builtins()[1])


def now() -> datetime:
    return NOW


def widget(name: str = "w", revision: str = "7", **metadata: Any) -> bytes:
    told = {
        "resourceVersion": revision,
        "name": name,
        "creationTimestamp": "2026-05-01T12:00:00Z",
        **metadata,
    }
    return orjson.dumps(
        {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": told, "spec": {"color": "red"}}
    )


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Encoding()),
        ("", Encoding()),
        (JSON, Encoding()),
        ("*/*", Encoding()),
        ("*", Encoding()),
        ("application/*", Encoding()),
        ("application/json, */*", Encoding()),
        (f"{PROTOBUF},application/json", Encoding()),
        (f"{PROTOBUF}, */*", Encoding()),
        ("text/html,application/yaml", Encoding(YAML)),
        ("application/json;q=0.1,application/yaml", Encoding(YAML)),
        ("application/yaml;q=0.1,application/json;q=0.1", Encoding(YAML)),
        ("application/json; charset=utf-8", Encoding()),
        ("application/json;stream=watch", Encoding()),
        ("application/json;pretty=1", Encoding(pretty=True)),
        ("application/json;pretty=true", Encoding()),
        (f"{TABLE},{TABLE_BETA},{JSON}", Encoding(JSON, "Table", "v1")),
        (f"{TABLE_BETA},{JSON}", Encoding(JSON, "Table", "v1beta1")),
        ("application/json; as=Table; v=v1; g=meta.k8s.io", Encoding(JSON, "Table", "v1")),
        (f"{YAML};as=Table;v=v1;g=meta.k8s.io", Encoding(YAML, "Table", "v1")),
        (f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{PARTIAL},{JSON}", Encoding(PROTOBUF, "PartialObjectMetadata", "v1")),
        (PARTIAL_LIST, Encoding(JSON, "PartialObjectMetadataList", "v1")),
        # What cannot be had is passed over for the next alternative.
        (f"application/json;as=Table;v=v2;g=meta.k8s.io,{JSON}", Encoding()),
        (f"application/json;as=Nonsense;v=v1;g=meta.k8s.io,{YAML}", Encoding(YAML)),
        (f"application/json;as=Table,{JSON}", Encoding()),
        (f"application/json;stream=other,{YAML}", Encoding(YAML)),
        (f"application/json;sv=2,{YAML}", Encoding(YAML)),
    ],
)  # fmt: skip
def test_the_accept_header_decides_the_encoding(header: str | None, expected: Encoding) -> None:
    assert accept(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        "text/html",
        PROTOBUF,
        "application/cbor",
        "application/json;as=Table;v=v2;g=meta.k8s.io",
        "application/json;as=Foo;v=v1;g=meta.k8s.io",
        "application/json;stream=nope",
        "application",
        "/",
        ",",
        ";q=1",
        "application/json/x",
    ],
)
def test_what_no_alternative_can_be_had_is_not_acceptable(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        accept(header)
    assert (caught.value.code, caught.value.reason) == (406, "NotAcceptable")
    assert (
        caught.value.message
        == "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf"
    )


def test_documents_without_a_table_form_pass_over_tables() -> None:
    assert accept(f"{TABLE},{JSON}", forms=NO_FORMS) == Encoding()
    with pytest.raises(ApiError):
        accept(TABLE, forms=NO_FORMS)


def test_a_review_has_no_table_but_metadata() -> None:
    with pytest.raises(ApiError) as caught:
        accept(TABLE, forms=METADATA_FORMS)
    assert caught.value.code == 406
    assert accept(f"{TABLE},{JSON}", forms=METADATA_FORMS) == Encoding()
    partial = accept(TABLE.replace("Table", "PartialObjectMetadata"), forms=METADATA_FORMS)
    assert partial.target == "PartialObjectMetadata"


def test_errors_are_written_as_asked_or_else_as_json() -> None:
    assert accept_anyway(YAML) == Encoding(YAML)
    assert accept_anyway(TABLE) == accept_anyway("text/html") == accept_anyway(None) == Encoding()


def test_clauses_come_in_the_order_of_upstreams_own_sort() -> None:
    def order(header: str) -> list[str]:
        return [f"{one.type}/{one.subtype}" for one in parse_accept(header)]

    assert order("*/*,a/*,a/b") == ["a/b", "a/*", "*/*"]
    assert order("a/b;q=0.2,c/d") == ["c/d", "a/b"]
    assert order("*/*;q=0.9,a/b;q=0.1") == ["a/b", "*/*"]
    assert order("a/b;q=x,c/d;q=0.1") == ["c/d", "a/b"]
    assert order("a/b,c/d") == ["a/b", "c/d"]


def test_a_header_of_many_clauses_is_read_up_to_a_limit() -> None:
    header = ",".join([*(f"x/y{number};q=0.5" for number in range(5_000)), JSON])
    assert len(parse_accept(header)) == CLAUSES_MAX
    with pytest.raises(ApiError):
        accept(header)


@pytest.mark.parametrize(
    ("query", "agent", "expected"),
    [
        ("", "kubectl/v1.37.2", False),
        ("", None, False),
        ("", "curl/8.5", True),
        ("", "Mozilla/5.0 (X11)", True),
        ("pretty=true", "kubectl", True),
        ("pretty=1&x=y", None, True),
        ("pretty=false", "curl/8.5", False),
        ("pretty=nonsense", "curl/8.5", False),
        ("pretty=", "curl/8.5", True),
        ("notpretty=1", "kubectl", False),
    ],
)
def test_people_get_indented_answers(query: str, agent: str | None, expected: bool) -> None:
    assert wants_pretty(query, agent) is expected


def test_plain_objects_are_the_stored_bytes_themselves() -> None:
    value = widget()
    assert accept(None).is_plain
    assert accept(None).object(value, WIDGETS) is value


def test_a_plain_list_joins_the_stored_bytes() -> None:
    listing = Listing([widget("a"), widget("b")], "9", "token", 3)
    found = orjson.loads(accept(None).list(WIDGETS, listing))
    assert found["kind"] == "WidgetList"
    assert found["apiVersion"] == "example.com/v1"
    assert found["metadata"] == {"resourceVersion": "9", "continue": "token", "remainingItemCount": 3}
    assert found["items"] == [orjson.loads(widget("a")), orjson.loads(widget("b"))]


def test_big_answers_stay_json_whatever_their_form() -> None:
    big = orjson.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {"x": "y" * YAML_BYTES_MAX}}
    )
    written = accept(YAML).object(big, CONFIGMAPS)
    assert written is big
    assert parse_yaml(written)[0] == orjson.loads(big)
    bigger = big.replace(b"yyyy", b"y" * PRETTY_BYTES_MAX, 1)
    assert accept(JSON, pretty=True).object(bigger, CONFIGMAPS) is bigger


def test_an_empty_list_has_items() -> None:
    assert accept(None).list(CONFIGMAPS, Listing([], "9")) == (
        b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[]}'
    )


def test_answers_in_yaml_and_indented_hold_the_same_object() -> None:
    value = widget(labels={"on": "yes", "n": "1e3"})
    assert parse_yaml(accept(YAML).object(value, WIDGETS)) == (orjson.loads(value), [])
    pretty = accept(JSON, pretty=True).object(value, WIDGETS)
    assert orjson.loads(pretty) == orjson.loads(value)
    assert pretty.startswith(b'{\n  "apiVersion": "example.com/v1",\n')


def test_a_table_of_one_object() -> None:
    found = orjson.loads(accept(TABLE).object(widget(), WIDGETS, now=now))
    metadata = orjson.loads(widget())["metadata"]
    assert found["kind"] == "Table"
    assert found["apiVersion"] == "meta.k8s.io/v1"
    assert found["metadata"] == {"resourceVersion": "7"}
    assert [column["name"] for column in found["columnDefinitions"]] == ["Name", "Color"]
    assert found["columnDefinitions"][1] == {
        "name": "Color",
        "type": "string",
        "format": "",
        "description": "Its color",
        "priority": 0,
    }
    assert found["rows"] == [
        {
            "cells": ["w", "red"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata},
        }
    ]


def test_a_table_in_the_beta_version_says_so_in_its_rows_too() -> None:
    found = orjson.loads(accept(TABLE_BETA).object(widget(), WIDGETS, now=now))
    assert found["apiVersion"] == found["rows"][0]["object"]["apiVersion"] == "meta.k8s.io/v1beta1"


@pytest.mark.parametrize(("text", "whole"), [("None", None), ("Object", orjson.loads(widget()))])
def test_a_tables_rows_carry_what_is_asked_for(text: str, whole: object) -> None:
    listing = Listing([widget()], "9", "token", 3)
    found = orjson.loads(accept(TABLE).list(WIDGETS, listing, include=include_object(text), now=now))
    assert found["metadata"] == {"resourceVersion": "9", "continue": "token", "remainingItemCount": 3}
    assert [row["object"] for row in found["rows"]] == [whole]


def test_an_unknown_include_object_is_refused() -> None:
    assert include_object("") == "Metadata"
    with pytest.raises(ApiError) as caught:
        include_object("X")
    assert caught.value.code == 400
    assert caught.value.message == (
        'Unable to convert to Table as requested: includeObject: Invalid value: "X": '
        "must be 'Metadata', 'Object', 'None', or empty"
    )


def test_metadata_alone_of_objects_and_lists() -> None:
    metadata = orjson.loads(widget())["metadata"]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    assert orjson.loads(accept(PARTIAL).object(widget(), WIDGETS)) == partial
    assert orjson.loads(accept(PARTIAL_LIST).list(WIDGETS, Listing([widget()], "9"))) == {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "9"},
        "items": [partial],
    }


def test_metadata_forms_do_not_fit_the_other_shape() -> None:
    with pytest.raises(ApiError) as of_list:
        accept(PARTIAL).list(CONFIGMAPS, Listing([], "9"))
    with pytest.raises(ApiError) as of_object:
        accept(PARTIAL_LIST).object(widget(), WIDGETS)
    assert (of_list.value.code, of_list.value.message) == (
        406,
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
    )
    assert of_object.value.message == (
        "you requested PartialObjectMetadataList, but the requested object is not a list (*unstructured.Unstructured)"
    )


def test_a_watch_frame_is_one_line_of_json() -> None:
    codec = accept(None).frame_codec(WIDGETS, framing=Framing.PLAIN)
    assert codec.frame("ADDED", b"{}") == b'{"type":"ADDED","object":{}}\n'
    assert codec.join([b"a", b"b"]) == b"ab"


def test_frames_are_whole_chunks_or_websocket_messages() -> None:
    chunked = accept(None).frame_codec(WIDGETS, framing=Framing.CHUNKED)
    assert chunked.frame("ADDED", b"{}") == b'1d\r\n{"type":"ADDED","object":{}}\n\r\n'
    websocket = accept(None).frame_codec(WIDGETS, framing=Framing.WEBSOCKET)
    assert websocket.frame("ADDED", b"{}") == b'\x81\x1d{"type":"ADDED","object":{}}\n'
    for size, head in ((200, b"\x81\x7e\x00\xe3"), (70_000, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x11\x8b")):
        assert websocket.frame("ADDED", b"x" * size).startswith(head + b'{"type"')


def test_table_frames_carry_a_row_and_their_columns() -> None:
    codec = accept(TABLE).frame_codec(WIDGETS, framing=Framing.PLAIN, now=now)
    frame = orjson.loads(codec.frame("MODIFIED", widget()))
    assert frame["type"] == "MODIFIED"
    assert frame["object"] == orjson.loads(accept(TABLE).object(widget(), WIDGETS, now=now))


def test_bookmarks_keep_revision_and_annotation_in_every_form() -> None:
    mark = orjson.dumps(
        {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"resourceVersion": "12", "annotations": {"k8s.io/initial-events-end": "true"}},
        }
    )
    tables = accept(TABLE).frame_codec(WIDGETS, framing=Framing.PLAIN, include="None", now=now)
    table = orjson.loads(tables.frame("BOOKMARK", mark))["object"]
    assert table["metadata"] == {"resourceVersion": "12"}
    assert table["rows"][0]["cells"] == ["", None]
    assert table["rows"][0]["object"]["metadata"] == orjson.loads(mark)["metadata"]
    partial = accept(PARTIAL).frame_codec(WIDGETS, framing=Framing.PLAIN)
    assert orjson.loads(partial.frame("BOOKMARK", mark))["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": orjson.loads(mark)["metadata"],
    }


def test_an_error_is_the_same_status_in_every_form() -> None:
    status = b'{"kind":"Status","code":410}'
    for header in (JSON, TABLE, PARTIAL):
        codec = accept(header).frame_codec(WIDGETS, framing=Framing.PLAIN)
        assert codec.frame("ERROR", status) == b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'


def test_codecs_that_write_differently_have_different_keys() -> None:
    beta = kinds.served(kinds.widgets(), "v1beta1")
    codecs = [
        accept(None).frame_codec(WIDGETS),
        accept(None).frame_codec(WIDGETS, framing=Framing.PLAIN),
        accept(PARTIAL).frame_codec(WIDGETS),
        accept(TABLE).frame_codec(WIDGETS),
        accept(TABLE).frame_codec(beta),
        accept(TABLE_BETA).frame_codec(WIDGETS),
        accept(TABLE).frame_codec(WIDGETS, include="Object"),
    ]
    assert len({codec.key for codec in codecs}) == len(codecs)
    assert accept(TABLE).frame_codec(WIDGETS).key == accept(TABLE).frame_codec(WIDGETS).key


def test_yaml_has_no_stream_form() -> None:
    with pytest.raises(ApiError) as caught:
        accept(YAML).frame_codec(WIDGETS)
    assert caught.value.code == 406
    assert caught.value.message == (
        "only the following media types are accepted: "
        "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    )


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("application/json; charset=utf-8", JSON),
        ("Application/JSON", JSON),
        ("application/yaml", YAML),
        (PROTOBUF, PROTOBUF),
    ],
)
def test_a_body_is_json_unless_it_says_otherwise(content_type: str | None, expected: str) -> None:
    assert body_type(content_type) == expected


@pytest.mark.parametrize("content_type", ["text/html", "application/cbor", ";", "json"])
def test_other_bodies_are_refused(content_type: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode_body(content_type, b"{}", CONFIGMAPS)
    assert (caught.value.code, caught.value.reason) == (415, "UnsupportedMediaType")
    assert caught.value.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (JSON, b"", "the object provided is unrecognized (must be of type Widget): couldn't get version/kind; "
                    "json parse error: unexpected end of JSON input (<empty>)"),
        (JSON, b"{}", "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in '{}' ({})"),
        (PROTOBUF, b"{}", "the object provided is unrecognized (must be of type Widget): provided data does not appear "
                          "to be a protobuf message, expected prefix [107 56 115 0] ({})"),
    ],
)  # fmt: skip
def test_bodies_that_cannot_be_read_are_refused_in_upstreams_words(
    content_type: str, body: bytes, message: str
) -> None:
    with pytest.raises(ApiError) as caught:
        decode_body(content_type, body, WIDGETS)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_the_same_object_is_read_from_json_yaml_and_protobuf() -> None:
    as_json = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"x":"1"}}'
    as_yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: '1'\n"
    # runtime.Unknown{TypeMeta{"v1", "ConfigMap"}, Raw: ConfigMap{ObjectMeta{Name: "a"}, Data: {"x": "1"}}}
    raw = b"\x0a\x03\x0a\x01a\x12\x06\x0a\x01x\x12\x011"
    as_protobuf = b"k8s\x00\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12" + bytes([len(raw)]) + raw
    bodies = {JSON: as_json, YAML: as_yaml, PROTOBUF: as_protobuf}
    found = [decode_body(media, body, CONFIGMAPS) for media, body in bodies.items()]
    assert all(one == (orjson.loads(as_json), []) for one in found)


def test_fields_given_twice_are_told() -> None:
    head = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"q","name":"q"}}'
    _, in_json = decode_body(JSON, head, CONFIGMAPS)
    _, in_yaml = decode_body(YAML, head, CONFIGMAPS)
    assert in_json == ['duplicate field "metadata.name"']
    assert in_yaml == ['yaml: unmarshal errors:\n  line 1: key "name" already set in map']


@given(st.text("aplicton/json*;,=q.0123 -+\tTable\x00é", max_size=200) | st.text(max_size=100))
def test_any_header_is_answered_or_refused(header: str) -> None:
    try:
        assert accept(header).content_type in (JSON, YAML)
    except ApiError as error:
        assert error.code == 406


@given(st.text(max_size=60))
def test_any_content_type_is_known_or_refused(content_type: str) -> None:
    try:
        assert body_type(content_type) in (JSON, YAML, PROTOBUF)
    except ApiError as error:
        assert error.code == 415


PARTIAL_PROTOBUF = f"{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


def test_metadata_alone_is_written_as_protobuf_where_that_is_wanted_first() -> None:
    assert accept(f"{PARTIAL_PROTOBUF},{JSON}").content_type == PROTOBUF
    assert accept(f"{PARTIAL_PROTOBUF};stream=watch").stream_type == f"{PROTOBUF};stream=watch"
    assert accept(f"{PROTOBUF},{JSON}") == Encoding()
    for refused in (PROTOBUF, TABLE.replace(JSON, PROTOBUF)):
        with pytest.raises(ApiError):
            accept(refused)


def test_objects_and_lists_of_metadata_in_protobuf_say_what_they_are() -> None:
    one = accept(PARTIAL_PROTOBUF)
    assert one.object(widget(), WIDGETS) == metaproto.partial_object("v1", orjson.loads(widget())["metadata"])
    listing = Listing([widget()], "7")
    listed = accept(PARTIAL_PROTOBUF.replace("as=PartialObjectMetadata", "as=PartialObjectMetadataList"))
    expected = metaproto.partial_list(
        "v1", {"resourceVersion": "7"}, [metaproto.partial_item(orjson.loads(widget())["metadata"])]
    )
    assert listed.list(WIDGETS, listing) == expected
    assert one.document(b'{"code":404}') == metaproto.status({"code": 404})


def test_watched_metadata_in_protobuf_has_its_length_before_each_event() -> None:
    added = metaproto.watch_event("ADDED", metaproto.partial_object("v1", orjson.loads(widget())["metadata"]))
    plain = accept(PARTIAL_PROTOBUF).frame_codec(WIDGETS, framing=Framing.PLAIN)
    assert plain.frame("ADDED", widget()) == len(added).to_bytes(4) + added
    failed = metaproto.watch_event("ERROR", metaproto.status({"code": 410}))
    assert plain.frame("ERROR", b'{"code":410}') == len(failed).to_bytes(4) + failed
    socket = accept(PARTIAL_PROTOBUF).frame_codec(WIDGETS, framing=Framing.WEBSOCKET)
    frame = socket.frame("ERROR", b'{"code":410}')
    assert frame == b"\x82" + bytes([len(failed)]) + failed
