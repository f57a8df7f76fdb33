"""JSON bodies in and stored bytes out. Expected messages were taken from sigs.k8s.io/json and encoding/json."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterling.machinery import codec, strictjson
from clusterling.machinery.codec import Expected
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object

CONFIGMAP = Expected("v1", "ConfigMap", typed=True)
WIDGET = Expected("example.com/v1", "Widget")


def refused(body: bytes, expected: Expected = WIDGET) -> ApiError:
    with pytest.raises(ApiError) as caught:
        codec.decode_json(body, expected)
    return caught.value


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "unexpected end of JSON input"),
        (b"{", "unexpected end of JSON input"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b"{} x", "invalid character 'x' after top-level value"),
        (b'{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":"\n"}', "invalid character '\\n' in string literal"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b"\xef\xbb\xbf{}", "invalid character '\u00ef' looking for beginning of value"),
        (b"nul", "invalid character ' ' in literal null (expecting 'l')"),
    ],
)
def test_what_is_not_json_is_refused_in_gos_words(body: bytes, problem: str) -> None:
    error = refused(body)
    assert error.code == 400
    assert error.message.startswith(
        f"the object provided is unrecognized (must be of type Widget): couldn't get version/kind; json parse error: {problem} ("
    )


def test_a_number_beyond_float64_is_refused() -> None:
    assert (
        "json: cannot unmarshal number 1e400 into Go value of type float64"
        in refused(b'{"kind":"Widget","apiVersion":"example.com/v1","a":1e400}').message
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"apiVersion":"example.com/v1"}',
            "the object provided is unrecognized (must be of type Widget): Object 'Kind' is missing in "
            '\'{"apiVersion":"example.com/v1"}\' ({"apiVersion":"example.com/v1" ...)',
        ),
        (
            b"[1]",
            "the object provided is unrecognized (must be of type Widget): couldn't get version/kind; json parse error: "
            'json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; '
            'Kind string "json:\\"kind,omitempty\\"" } (5b315d)',
        ),
        (
            b'{"kind":3,"apiVersion":"v1"}',
            "the object provided is unrecognized (must be of type Widget): couldn't get version/kind; json parse error: "
            "json: cannot unmarshal number into Go struct field .kind of type string "
            '({"kind":3,"apiVersion":"v1"})',
        ),
        (
            b'{"kind":"W","apiVersion":"a/b/c"}',
            "the object provided is unrecognized (must be of type Widget): unexpected GroupVersion string: a/b/c "
            '({"kind":"W","apiVersion":"a/b/ ...)',
        ),
        (
            b'{"kind":"Widget","apiVersion":"example.com/v1","metadata":"x"}',
            'Widget in version "v1" cannot be handled as a Widget: json: cannot unmarshal string into Go value of type v1.ObjectMeta',
        ),
        (
            b'{"kind":"Widget"}',
            "the API version in the data () does not match the expected API version (example.com/v1)",
        ),
    ],
)
def test_a_body_that_is_no_object_gets_upstreams_message(body: bytes, message: str) -> None:
    assert refused(body).message == message


def test_typed_kinds_may_leave_out_what_the_path_says() -> None:
    obj, _ = codec.decode_json(b'{"metadata":{"name":"a"}}', CONFIGMAP)
    assert (obj["apiVersion"], obj["kind"]) == ("v1", "ConfigMap")


def test_metadata_null_counts_as_none_given() -> None:
    obj, _ = codec.decode_json(b'{"kind":"W","apiVersion":"v1","metadata":null}')
    assert obj["metadata"] == {}


@pytest.mark.parametrize(
    ("body", "duplicates"),
    [
        (b'{"a":1,"a":2,"b":[{"x":1,"x":2}]}', ['duplicate field "a"', 'duplicate field "b[0].x"']),
        (b'{ "a" : {"b": 1, "c": "\\u0022", "b": ""} }', ['duplicate field "a.b"']),
        # Escaped quotes hide as many quotes as the duplicate adds.
        (b'{"k":"\\u0022\\u0022","b":1,"b":1}', ['duplicate field "b"']),
        (b'{"k":1e5,"k":1e5,"l":1e5}', ['duplicate field "k"']),
        (b'{"a":{"x":1,"x":1,"x":1}}', ['duplicate field "a.x"']),
        (b'{"a":"b\\"c", "d": "e:f"}', []),
        (b'{"":0,"":1}', ['duplicate field ""']),
    ],
)
def test_keys_given_twice_are_named_and_the_last_counts(body: bytes, duplicates: list[str]) -> None:
    value, found = codec.parse_json(body)
    assert found == duplicates
    assert value == json.loads(body)


def test_no_more_than_a_hundred_duplicates_are_named() -> None:
    body = b"{" + b",".join(b'"k%d":1,"k%d":1' % (i, i) for i in range(150)) + b"}"
    assert len(codec.parse_json(body)[1]) == 100


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(_json, st.booleans(), st.booleans())
def test_any_json_reads_as_the_standard_library_reads_it(value: Any, ascii_only: bool, spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    try:
        body = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    except UnicodeEncodeError:
        return
    got, duplicates = codec.parse_json(body)
    assert duplicates == []
    if "\\ud" not in body.decode():
        assert got == value
        assert strictjson.parse(body) == (value, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", float(2**63)),
        ("18446744073709551615", float(2**64)),
        ("-9223372036854775809", float(-(2**63) - 1)),
        ("1.0", 1),
        ("1e3", 1000),
        ("1.5", 1.5),
        ("9007199254740993", 9007199254740993),
        ("1e20", 1e20),
    ],
)
def test_numbers_have_the_types_go_gives_them(text: str, value: float) -> None:
    got, _ = codec.parse_json(b'{"n":%b}' % text.encode())
    assert got["n"] == value
    assert type(got["n"]) is type(value) or (got["n"] == float(-(2**63)))


def test_bytes_that_are_not_utf8_become_replacement_characters_one_by_one() -> None:
    value, _ = codec.parse_json(b'{"a":"\xff\xed\xa0\x80","b":"\\ud800x","c":"\\ud83d\\ude00"}')
    assert value == {"a": "\ufffd" * 4, "b": "\ufffdx", "c": "\U0001f600"}


@pytest.mark.parametrize("depth", [201, 254, 300, 5000])
def test_nesting_beyond_the_limit_is_refused(depth: int) -> None:
    for start, end in ((b"[", b"]"), (b'{"a":', b"}")):
        with pytest.raises(ApiError) as caught:
            codec.parse_json(start * depth + b"1" + end * depth)
        assert caught.value.code == 400


def test_nesting_at_the_limit_is_read() -> None:
    codec.parse_json(b"[" * 200 + b"]" * 200)
    codec.parse_json(b'{"a":' * 200 + b"1" + b"}" * 200)


def test_bodies_of_too_many_tokens_are_refused_before_decoding() -> None:
    for unit in (b"[],", b'"",', b"0,", b'{"a":0},'):
        body = b"[" + unit * 600_000 + b"0]"
        assert refused(body).code == 413


def test_commas_and_quotes_inside_strings_are_no_tokens() -> None:
    body = json.dumps(
        {"kind": "W", "apiVersion": "v1", "csv": "a,:" * 400_000, "q": '"\\' * 300_000}
    ).encode()
    obj, _ = codec.decode_json(body)
    assert len(obj["csv"]) == 1_200_000


def test_stored_bytes_begin_with_the_head_and_carry_no_resource_version() -> None:
    obj: Object = {
        "spec": {"metadata": {"a": 1}},
        "metadata": {"name": "x", "resourceVersion": "7", "uid": "u"},
        "kind": "Widget",
        "apiVersion": "example.com/v1",
    }
    value = codec.encode_stored(obj)
    assert value == (
        b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x","uid":"u"},'
        b'"spec":{"metadata":{"a":1}}}'
    )
    assert obj["metadata"]["resourceVersion"] == "7"
    assert json.loads(codec.with_revision(value, 12))["metadata"]["resourceVersion"] == "12"


@pytest.mark.parametrize("metadata", [{}, {"name": "x"}, {"annotations": {'"metadata":{': "y"}}])
@pytest.mark.parametrize("kind", ["Widget", '"metadata":{', '\\"metadata":{'])
def test_splices_land_in_metadata_whatever_the_strings_around_say(kind: str, metadata: Object) -> None:
    obj: Object = {"apiVersion": "a.io/v1", "kind": kind, "metadata": metadata, "x": '"metadata":{'}
    value = codec.with_revision(codec.encode_stored(obj), 34)
    assert json.loads(value) == {**obj, "metadata": {"resourceVersion": "34", **metadata}}
    assert json.loads(codec.with_api_version(value, "b.io/v2"))["apiVersion"] == "b.io/v2"


def test_encoded_bytes_hold_no_spare_memory() -> None:
    import sys

    value = codec.encode_stored({"apiVersion": "v1", "kind": "X", "metadata": {}})
    assert sys.getsizeof(value) == sys.getsizeof(b"") + len(value)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": [0]}, {"a": [False]}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": None}, {}, False),
    ],
)
def test_values_are_the_same_where_a_client_sees_no_difference(
    one: Object, other: Object, same: bool
) -> None:
    assert codec.same_json(one, other) is same
