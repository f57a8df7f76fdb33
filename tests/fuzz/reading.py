"""Targets: what reads bodies, and what writes them back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import orjson

from clusterling.machinery import codec, metaproto, strictjson, yaml, yamltext
from clusterling.machinery.codec import Expected
from clusterling.machinery.errors import ApiError
from clusterling.machinery.objectmeta import coerce_object_meta
from clusterling.machinery.protobuf import PREFIX
from clusterling.machinery.protowire import content
from clusterling.packs import builtin
from clusterling.version import KUBERNETES
from tests.fuzz import seeds, values
from tests.fuzz.targets import SEED_BYTES_MAX, foreseen, target, written
from tests.fuzz.values import Source
from tools import gomodules

_EXPECTED: Final = Expected("v1", "ConfigMap", typed=True)
# To YAML 1.1 these end a line, in quotes too: what stands around them is folded, for upstream as for us.
_LINE_BREAKS: Final = ("\x85".encode(), "\u2028".encode(), "\u2029".encode())
_LONGEST_SIMPLE_KEY: Final = 1_000  # Beyond it YAML wants a question mark before a key.


@target(seeds.as_json)
def json(data: bytes) -> None:
    """The fast decoder and the exact one read the same, refuse the same, and what they read is read again as it was."""
    try:
        value, duplicates = codec.parse_json(data)
    except ApiError as error:
        foreseen(error)
        return
    except strictjson.JsonError:
        try:
            strictjson.parse(data)
        except strictjson.JsonError:
            return
        raise AssertionError("the exact parser takes what the fast one refuses") from None
    exact, told = strictjson.parse(data)
    assert orjson.dumps(value) == orjson.dumps(exact)
    assert duplicates == told
    again, none = codec.parse_json(orjson.dumps(value))
    assert orjson.dumps(again) == orjson.dumps(value)
    assert none == []


@target(seeds.as_json)
def json_body(data: bytes) -> None:
    """A body is an object with a kind, or refused."""
    for expected in (_EXPECTED, codec.ANYTHING):
        try:
            obj, _ = codec.decode_json(data, expected)
        except ApiError as error:
            foreseen(error)
            continue
        stored = codec.encode_stored(obj)
        assert codec.decode_json(codec.with_revision(stored, 7))[0]["metadata"]["resourceVersion"] == "7"


def _yaml_seeds() -> Iterator[bytes]:
    for body in seeds.bodies()[::8]:
        if isinstance(body, dict):
            yield yamltext.dump(body)
    yield b"a: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  e: ~\n? [x]\n: 1\n"
    yield b"%YAML 1.1\n%TAG !e! tag:example.com,2000:\n---\n- !e!x 0x1f\n- !!binary aGk=\n- |\n  x\n- >\n  y\n...\n"


@target(_yaml_seeds)
def yaml_body(data: bytes) -> None:
    """What YAML holds can be written as JSON, in bounds, and as YAML again."""
    try:
        value, _ = yaml.parse_yaml(data)
    except yaml.YamlError:
        value = None
    else:
        text = orjson.dumps(value)
        assert len(text) <= 12 * len(data) + 12 * yaml.ALIASED_CHARACTERS_MAX
        codec.check_depth(value)
    try:
        obj, _ = codec.decode_yaml(data, _EXPECTED)
    except ApiError as error:
        foreseen(error)
        return
    again, _ = yaml.parse_yaml(yamltext.dump(obj))
    assert written(again) == written(obj)


@target(seeds.as_values)
def json_is_yaml(data: bytes) -> None:
    """Applied configurations are read as YAML though clients send JSON: the value is the same."""
    value = Source(data).value()
    text = orjson.dumps(value)
    if any(line_break in text for line_break in _LINE_BREAKS):
        return
    try:
        found, duplicates = yaml.parse_yaml(text)
    except yaml.YamlError as error:
        assert (
            "control characters" in str(error) or "special characters" in str(error) or _has_long_key(value)
        ), error
        return
    assert duplicates == []
    assert orjson.dumps(found) == orjson.dumps(value)


def _has_long_key(value: Any) -> bool:
    if isinstance(value, dict):
        return any(len(orjson.dumps(key)) > _LONGEST_SIMPLE_KEY for key in value) or any(
            map(_has_long_key, value.values())
        )
    return isinstance(value, list) and any(map(_has_long_key, value))


_KINDS: Final = (
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "List"),
    ("v1", "DeleteOptions"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ControllerRevision"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "Event"),
    ("coordination.k8s.io/v1", "Lease"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("resource.k8s.io/v1", "ResourceSlice"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
)


def _protobuf_seeds() -> Iterator[bytes]:
    yield b"\x01\x0a\x03\x0a\x01a\x12\x04\x0a\x02kv"
    try:
        module = gomodules.directory("k8s.io/api", f"v0.{KUBERNETES.partition('.')[2]}")
    except gomodules.ModuleMissing:
        return
    for path in islice(sorted((module / "testdata" / "HEAD").glob("*.pb")), 200):
        if (raw := path.read_bytes()) and len(raw) <= SEED_BYTES_MAX:
            yield b"\x00" + raw


@target(_protobuf_seeds)
def protobuf(data: bytes) -> None:
    """Whatever the wire holds, it is an object that can be written, or refused. The first byte says of which kind."""
    choice, raw = data[:1], data[1:]
    body = raw
    if choice and choice != b"\x00":
        api_version, kind = _KINDS[choice[0] % len(_KINDS)]
        head = content(1, content(1, api_version.encode()) + content(2, kind.encode()))
        body = PREFIX + head + content(2, raw)
    try:
        obj = builtin.protobuf_codec().decode(body, _EXPECTED)
    except ApiError as error:
        foreseen(error)
        return
    orjson.dumps(obj)


def _metadata_seeds() -> Iterator[bytes]:
    for obj in islice(seeds.objects(), 0, None, 40):
        yield values.value(obj["metadata"])


@target(_metadata_seeds)
def metadata_as_protobuf(data: bytes) -> None:
    """Metadata that was taken is written as protobuf, and read from it with the same names."""
    try:
        kept, _ = coerce_object_meta(Source(data).value(), kind="ConfigMap")
    except ValueError:
        return
    obj = builtin.protobuf_codec().decode(metaproto.partial_object("v1", kept))
    found = obj.get("metadata", {})
    for name in (
        "name",
        "namespace",
        "uid",
        "generateName",
        "labels",
        "annotations",
        "finalizers",
        "generation",
    ):
        assert written(found.get(name)) == written(kept.get(name) or None), name
    assert written(coerce_object_meta(kept, kind="ConfigMap")[0]) == written(kept)
