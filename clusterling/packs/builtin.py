"""Built-in kinds from the compiled data: a plain kind is one line.

The data (`data/`, written by tools/compile_data.py) is read package by package when first asked for, so a server
pays for the groups it serves. Everything here is a fact of the Kubernetes version that
`clusterling.version.KUBERNETES` pins; what is special about a kind is in its strategy.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson
from typing_extensions import override

from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.protobuf import MessageTable, ProtobufCodec
from clusterling.machinery.schema import Schema, compile_schema
from clusterling.machinery.table import CREATED_DESCRIPTION, NAME_COLUMN, Cell, Column, age
from clusterling.registry.resource import Converter, Names, Resource, Review, Subresource, Version
from clusterling.registry.strategy import Strategy

_DATA: Final = Path(__file__).parent / "data"
_DESCRIPTIONS: Final = "descriptions.json.zlib"

# Upstream's own kinds declare their age as a string, where custom resources have a date.
AGE: Final = Column(
    "Age",
    "string",
    lambda obj, now: age(obj["metadata"].get("creationTimestamp"), now),
    description=CREATED_DESCRIPTION,
)
COLUMNS: Final = (NAME_COLUMN, AGE)


def at(*path: str, absent: object = "") -> Cell:
    """A cell that shows what stands there in the object, `absent` where nothing does."""

    def cell(obj: Object, _now: datetime) -> object:
        found: Any = obj
        for step in path:
            found = (found or {}).get(step)
        return absent if found is None else found

    return cell


def read(name: str) -> Any:
    """The content of one of the compiled files, anew each time."""
    return orjson.loads(zlib.decompress((_DATA / name).read_bytes()))


@cache
def _discovery() -> Object:
    found: Object = read("discovery.zlib")
    return found


class _Definitions(Mapping[str, Object]):
    """Every published schema by name, read by package."""

    def __init__(self) -> None:
        self._packages: dict[str, dict[str, Object]] = {}

    @override
    def __getitem__(self, name: str) -> Object:
        return self._package(name.rpartition(".")[0])[name]

    @override
    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._package(name.rpartition(".")[0])

    @override
    def __iter__(self) -> Iterator[str]:
        for path in sorted((_DATA / "schemas").glob("*.zlib")):
            yield from self._package(path.name.removesuffix(".zlib"))

    @override
    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _package(self, name: str) -> dict[str, Object]:
        if name not in self._packages:
            path = _DATA / "schemas" / f"{name}.zlib"
            self._packages[name] = read(f"schemas/{name}.zlib") if path.is_file() else {}
        return self._packages[name]


definitions: Final[Mapping[str, Object]] = _Definitions()


def definition_of(group: str, version: str, kind: str) -> str:
    """The name of the definition that describes a kind (`io.k8s.api.core.v1.ConfigMap`). Raises KeyError."""
    name: str = _discovery()["definitions"][str(GroupVersion(group, version))][kind]
    return name


@cache
def schema_of(group: str, version: str, kind: str) -> Schema:
    """The kind's schema, compiled. Raises KeyError for a kind that upstream does not publish."""
    definition = definitions[definition_of(group, version, kind)]
    return compile_schema(definition, definitions=definitions, go_types=go_types)


@cache
def _go_types(package: str) -> dict[str, Object]:
    path = _DATA / "gotypes" / f"{package}.zlib"
    found: dict[str, Object] = read(f"gotypes/{package}.zlib") if path.is_file() else {}
    return found


@cache
def go_types(definition: str) -> Mapping[str, Any]:
    """What Go's encoder and decoder act by, of a definition, that its schema does not say (tools/go_types.py).

    `order`: its fields as protobuf numbers them, which is nearly the order in which they are declared.
    """
    package, _, name = definition.rpartition(".")
    # `io.k8s.api.core.v1` here is `k8s.io.api.core.v1` there.
    table = _message_table(f"k8s.io.{package.removeprefix('io.k8s.')}").get(name, {})
    order = [table[number][0] for number in sorted(table, key=int)]
    return {**_go_types(package).get(name, {}), "order": order}


def published(name: str) -> Object:
    """A definition as a server publishes it: with enumerations and the zero values of fields that always have one, and
    with its descriptions where `make explain-data` has put them. Shares what stays as it is. Raises KeyError.
    """
    package = name.rpartition(".")[0]
    return _told(definitions[name], _besides(package).get(name, {}), _descriptions().get(name, {}))


@cache
def empty_of(group: str, version: str, kind: str) -> Object:
    """What Go writes of a kind's object with nothing in it: structs that are not pointers, and lists that are never left out."""
    return _empty(definition_of(group, version, kind))


def _empty(name: str) -> Object:
    schema = published(name)
    required = schema.get("required", ())
    made: Object = {}
    for field, one in schema.get("properties", {}).items():
        reference: str = one.get("$ref") or one.get("allOf", [{}])[0].get("$ref", "")
        if one.get("default") == {} and reference:
            made[field] = _empty(reference.rpartition("/")[2])
        elif field in required and one.get("type") in ("array", "object"):
            made[field] = None
    return made


def option_versions() -> list[str]:
    """The apiVersions that OpenAPI v2 tells DeleteOptions and events of watches under."""
    told: list[str] = _discovery()["options"]
    return told


def _told(schema: Object, besides: Object, texts: Mapping[str, str]) -> Object:
    """`texts` are those of the schema ("") and of its fields."""
    told = {"description": texts[""], **schema} if "" in texts else dict(schema)
    for key, value in besides.items():
        if key in ("items", "additionalProperties"):
            told[key] = _told(schema[key], value, {})
        elif key != "properties":
            told[key] = value
    if "properties" in schema:
        more = besides.get("properties", {})
        told["properties"] = {
            field: _told(one, more.get(field, {}), {"": texts[field]} if field in texts else {})
            for field, one in schema["properties"].items()
        }
    if "$ref" in told and len(told) > 1:
        # What stands beside a reference is ignored, so upstream wraps the reference.
        told["allOf"] = [{"$ref": told.pop("$ref")}]
    return told


@cache
def _besides(package: str) -> dict[str, Object]:
    path = _DATA / "published" / f"{package}.zlib"
    found: dict[str, Object] = read(f"published/{package}.zlib") if path.is_file() else {}
    return found


@cache
def _descriptions() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = read(_DESCRIPTIONS) if (_DATA / _DESCRIPTIONS).is_file() else {}
    return found


@cache
def _markers(package: str) -> dict[str, dict[str, Object]]:
    path = _DATA / "markers" / f"{package}.zlib"
    table: dict[str, dict[str, Object]] = read(f"markers/{package}.zlib") if path.is_file() else {}
    return table


def markers_of(definition: str) -> Mapping[str, Object]:
    """What upstream's markers say of a definition's fields: JSON name → rules (packs/marked.py). Empty for most."""
    package, _, name = definition.rpartition(".")
    return _markers(package).get(name, {})


def is_published(group: str, version: str, kind: str) -> bool:
    """Upstream has such a kind, whether or not it is served here."""
    return kind in _discovery()["definitions"].get(str(GroupVersion(group, version)), ())


def facts(group: str, version: str, plural: str) -> Object:
    """What upstream's discovery says of a resource: name, kind, verbs, namespaced, subresources … Raises KeyError."""
    for one in _discovery()["resources"].get(str(GroupVersion(group, version)), ()):
        if one["name"] == plural:
            found: Object = one
            return found
    raise KeyError(f"{plural}.{version}.{group}")


def resource(
    group: str,
    version: str,
    plural: str,
    *,
    strategy: Strategy | None = None,
    columns: tuple[Column, ...] = COLUMNS,
    parts: tuple[str, ...] = (),
    storage: Resource | None = None,
    converter: Converter | None = None,
    subresources: Iterable[Subresource] = (),
    review: Review | None = None,
) -> Resource:
    """A built-in kind with one version, from upstream's facts. Raises KeyError for one that upstream does not serve."""
    found = facts(group, version, plural)
    kind: str = found["kind"]
    below = {one["name"] for one in found["subresources"]}
    return Resource(
        group=group,
        names=Names(
            plural=plural,
            singular=found["singularName"],
            kind=kind,
            list_kind=f"{kind}List",
            short_names=tuple(found.get("shortNames", ())),
            categories=tuple(found.get("categories", ())),
        ),
        namespaced=found.get("namespaced", False),
        versions=(
            Version(
                version,
                schema_of(group, version, kind),
                columns=columns,
                status="status" in below,
                empty=partial(empty_of, group, version, kind),
            ),
        ),
        storage_version=version,
        strategy=strategy or Strategy(),
        verbs=tuple(found["verbs"]),
        parts=parts,
        storage=storage,
        converter=converter,
        subresources=MappingProxyType({one.name: one for one in subresources}),
        review=review,
    )


@cache
def _message_table(package: str) -> MessageTable:
    path = _DATA / "protobuf" / f"{package}.zlib"
    table: MessageTable = read(f"protobuf/{package}.zlib") if path.is_file() else {}
    return table


@cache
def protobuf_codec() -> ProtobufCodec:
    """The reader of protobuf bodies, one for the process; tables are read package by package."""
    table_of: Callable[[str], MessageTable] = _message_table
    return ProtobufCodec(_discovery()["packages"], table_of)
