"""The committed data is what the compiler makes of the pinned modules."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from clusterling.version import KUBERNETES
from tools import compile_data, enumerations, gomodules
from tools.enumerations import Enumeration
from tools.protobuf_tables import read_package


def test_the_committed_data_is_what_the_compiler_makes() -> None:
    try:
        module = gomodules.directory("k8s.io/kubernetes", f"v{KUBERNETES}")
        compiled = compile_data.compile_all(module, compile_data.protobuf_modules())
    except gomodules.ModuleMissing as error:
        pytest.skip(f"compiling needs the Go modules of Kubernetes {KUBERNETES}: {error}")
    present = {
        str(path.relative_to(compile_data.DATA))
        for path in compile_data.DATA.rglob("*.zlib")
        if path.name != compile_data.DESCRIPTIONS
    }
    assert present == compiled.keys()
    # Contents, not bytes: zlib's output may differ from one version to the next.
    differing = [
        name
        for name, content in compiled.items()
        if zlib.decompress((compile_data.DATA / name).read_bytes()) != zlib.decompress(content)
    ]
    assert differing == []


def test_the_committed_data_is_small_and_carries_no_prose() -> None:
    files = [path for path in compile_data.DATA.rglob("*.zlib") if path.name != compile_data.DESCRIPTIONS]
    assert 50_000 < sum(path.stat().st_size for path in files) < 600_000
    texts = [
        zlib.decompress(path.read_bytes()) for path in files if path.parent.name in ("schemas", "published")
    ]
    assert not any(b'"description":"' in text for text in texts)


def test_stripping_keeps_what_says_something() -> None:
    schema = {
        "description": "prose",
        "type": "object",
        "properties": {
            "description": {"type": "string", "default": "", "description": "prose"},
            "default": {"type": "integer", "default": 0},
            "port": {"type": "string", "default": "TCP"},
            "meta": {"allOf": [{"$ref": "#/components/schemas/M"}], "default": {}, "description": "prose"},
            "other": {"allOf": [{"$ref": "#/components/schemas/M"}], "default": {"a": 1}},
        },
    }
    assert compile_data.stripped(schema) == {
        "type": "object",
        "properties": {
            "description": {"type": "string"},
            "default": {"type": "integer"},
            "port": {"type": "string", "default": "TCP"},
            "meta": {"$ref": "#/components/schemas/M"},
            "other": {"$ref": "#/components/schemas/M", "default": {"a": 1}},
        },
    }


def test_what_is_left_out_of_a_schema_is_told_beside_it() -> None:
    schema = {
        "default": {},
        "properties": {
            "name": {"type": "string", "default": ""},
            "port": {"type": "string", "default": "TCP"},
            "policy": {"type": "string"},
            "modes": {"type": "array", "items": {"type": "string"}},
            "states": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
            "times": {
                "type": "array",
                "items": {"allOf": [{"$ref": "#/components/schemas/T"}], "default": {}},
            },
        },
    }
    told = [
        Enumeration("policy", ["Always"], False, ""),
        Enumeration("modes", ["One"], True, ""),
        Enumeration("states", ["Two"], True, ""),
    ]
    assert compile_data.published_besides(schema, told) == {
        "default": {},
        "properties": {
            "name": {"default": ""},
            "policy": {"enum": ["Always"]},
            "modes": {"items": {"enum": ["One"]}},
            "states": {"additionalProperties": {"default": "", "enum": ["Two"]}},
            "times": {"items": {"default": {}}},
        },
    }


def test_enumerations_are_read_from_the_generated_source(tmp_path: Path) -> None:
    fields = (
        '"kind": {\n\t\t\t\t\t\tSchemaProps: spec.SchemaProps{\n'
        '\t\t\t\t\t\t\tDescription: "A \\"kind\\".\\n\\nPossible enum values:",\n'
        '\t\t\t\t\t\t\tEnum:        []interface{}{"A", "B"},\n\t\t\t\t\t\t},\n\t\t\t\t\t},\n'
        '\t\t\t\t\t"modes": {\n\t\t\t\t\t\tSchemaProps: spec.SchemaProps{\n'
        '\t\t\t\t\t\t\t\t\t\tEnum:   []interface{}{"C"},\n\t\t\t\t\t\t},\n\t\t\t\t\t},\n'
        '\t\t\t\t\t"name": {\n\t\t\t\t\t\tSchemaProps: spec.SchemaProps{\n\t\t\t\t\t\t},\n\t\t\t\t\t},\n'
    )
    generated = tmp_path / enumerations.GENERATED
    generated.parent.mkdir(parents=True)
    generated.write_text(
        f"func schema_k8sio_api_x_v1_Thing(ref common.X) common.Y {{\n\t\t\t\t\t{fields}}}\n\n"
        "func schema_pkg_apis_x_v1_Plain(ref common.X) common.Y {\n}\n"
    )
    (name,) = found = enumerations.read_enumerations(tmp_path)
    assert name == enumerations.function_of("io.k8s.api.x.v1.Thing")
    assert enumerations.function_of("io.k8s.apimachinery.pkg.apis.x.v1.Plain") == "pkg_apis_x_v1_Plain"
    assert found[name] == [
        Enumeration("kind", ["A", "B"], False, 'A "kind".\n\nPossible enum values:'),
        Enumeration("modes", ["C"], True, ""),
    ]


def test_tables_tell_how_go_holds_each_field(tmp_path: Path) -> None:
    directory = tmp_path / "v1"
    directory.mkdir()
    (directory / "generated.proto").write_text(
        "syntax = \"proto2\";\npackage k8s.io.api.x.v1;\n\nmessage Thing {\n  // prose with optional string no = 9;\n"
        "  optional .k8s.io.m.ObjectMeta metadata = 1;\n\n  optional int32 replicas = 2;\n  optional string aPIGroup = 3;\n"
        "  optional Source source = 4;\n  repeated string names = 5;\n  map<string, bytes> data = 6;\n"
        "  optional Time when = 7;\n  optional int32 port = 8;\n}\n\nmessage Words {\n  repeated string items = 1;\n}\n"
    )  # fmt: skip
    (directory / "types.go").write_text(
        'package v1\n\nconst GroupName = "x.io"\n\ntype Thing struct {\n'
        '\tMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`\n'
        '\tReplicas *int32 `json:"replicas,omitempty" protobuf:"varint,2,opt,name=replicas"`\n'
        '\tAPIGroup string `json:"apiGroup,omitempty" protobuf:"bytes,3,opt,name=aPIGroup"`\n'
        '\tSource `json:",inline" protobuf:"bytes,4,opt,name=source"`\n'
        '\tNames []string `json:"names" protobuf:"bytes,5,rep,name=names"`\n'
        '\tData map[string][]byte `json:"data" protobuf:"bytes,6,rep,name=data"`\n'
        '\tWhen Time `json:"when,omitempty,omitzero" protobuf:"bytes,7,opt,name=when"`\n'
        '\tPort int32 `json:"port" protobuf:"varint,8,opt,name=port"`\n'
        "}\n\ntype Words []string\n"
    )
    package = read_package(directory / "generated.proto")
    assert (package.name, package.api_version) == ("k8s.io.api.x.v1", "x.io/v1")
    expected: dict[str, Any] = {
        "Thing": {
            "1": ["metadata", ".k8s.io.m.ObjectMeta", ""],
            "2": ["replicas", "int32", "k"],
            "3": ["apiGroup", "string", ""],
            "4": ["", ".k8s.io.api.x.v1.Source", "i"],
            "5": ["names", "string", "r"],
            "6": ["data", "bytes", "m"],
            "7": ["when", ".k8s.io.api.x.v1.Time", "z"],
            "8": ["port", "int32", "k"],
        },
        "Words": {"1": ["items", "string", "l"]},
    }
    assert package.table == expected


def test_two_definitions_of_one_name_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "api" / "openapi-spec" / "v3"
    directory.mkdir(parents=True)
    for name, kind in (("a.json", "string"), ("b.json", "integer")):
        document = {"components": {"schemas": {"io.x.Y": {"type": kind}}}}
        (directory / name).write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"io\.x\.Y differs in b\.json"):
        compile_data.published_definitions(tmp_path)
