"""A kind's schema, compiled to functions: default, prune, validate.

    compile_schema(source) → Schema        shared by content, so that a thousand clusters with one CRD have one
    compile_text(text) → Schema            the same of what is not decoded yet, nor will be before it is needed
    Schema.default(obj)                    in place
    Schema.prune(obj) → unknown paths      in place
    Schema.validate(obj, old) → errors     all of them, in upstream's words

How it works: `node` reads a schema once into Nodes. `shaping` makes closures that default and prune, `checking` one
that answers "certainly valid" in a single walk, `explaining` finds every error, in upstream's way, when that
answer is no. `invariants` covers embedded objects and lists that are sets or maps. Closures are made at first use.

What schemas may be is not decided here: `machinery.structural` refuses those that a CRD must not have.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from threading import Lock
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.schema.budget import TooCostly, refill
from clusterling.machinery.schema.checking import Check, compile_check
from clusterling.machinery.schema.converting import unconvertible
from clusterling.machinery.schema.correlation import Correlated
from clusterling.machinery.schema.explaining import explain
from clusterling.machinery.schema.invariants import (
    Walk,
    compile_embedded,
    compile_lists,
    compile_metadata,
    compile_prune_metadata,
)
from clusterling.machinery.schema.node import Definitions, Node, SchemaError, has_rules, measure, node_of
from clusterling.machinery.schema.shaping import Default, Prune, Unknown, compile_default, compile_prune
from clusterling.machinery.schema.typed import GoTypes, compile_fits, mismatch, settle_nulls
from clusterling.machinery.steps import Steps, at_once, ordered

__all__ = ["ANY", "Schema", "SchemaError", "compile_schema", "compile_text"]

# How many schemas are kept compiled, and how much source they may have in all.
SCHEMAS_MAX: Final = 2048
SOURCE_BYTES_MAX: Final = 64 << 20
# Of a schema that takes long to compile: 10 to 20 µs for each of its properties.
LARGE_BYTES: Final = 16 * 1024
_PRESERVES: Final = "x-kubernetes-preserve-unknown-fields"


# Objects within the depth that decoding allows never get here, unless a schema's branches add to their own.
_TOO_DEEP: Final = invalid_value("<nil>", "", "nested too deeply to be validated")
_TOO_COSTLY: Final = invalid_value(
    "<nil>", "", "too costly to be validated by a schema with so many branches"
)


class Schema:
    """A compiled schema. Made by `compile_schema` only; immutable, shared between clusters."""

    def __init__(self, source: Object | bytes, node: Node | None = None) -> None:
        """`source` as text is read when something is first asked of it. `node`: the source as read."""
        self._text = source if isinstance(source, bytes) else b""
        if not isinstance(source, bytes):
            self.__dict__["source"] = source
        if node is not None:
            self.__dict__["node"] = node
        self.go_types: GoTypes = lambda struct: {}
        # False: to use it takes so long at first that others should have a turn meanwhile, as they have in `compiling`.
        self.is_compiled = True

    @cached_property
    def digest(self) -> bytes:
        """A hash of what it was made from, the same in every process."""
        return hashlib.sha256(self._text or orjson.dumps(self.source)).digest()

    @cached_property
    def source(self) -> Object:
        """The schema as it was given, with all keys in order: that is what errors come in, however it was written."""
        return self._read(at_once(ordered(self._text)))

    def reading(self) -> Steps[None]:
        """Has `source` at hand."""
        if "source" not in self.__dict__:
            self.__dict__["source"] = self._read((yield from ordered(self._text)))

    def _read(self, source: Object) -> Object:
        return source

    @cached_property
    def node(self) -> Node:
        """The source as read, for who compiles more from it."""
        return node_of(self.source)

    def compiling(self) -> Steps[None]:
        """Compiles all of it."""
        yield from self.reading()
        places = [self.node]
        for node in places:
            yield from node.growing()
            places += filter(None, (*node.properties.values(), node.additional, node.items, node.negated))
            for keyword in ("allOf", "anyOf", "oneOf"):
                places += node.branches(keyword)
            yield
        # What is below a place is made before it, and then found by it.
        for node in reversed(places):
            for compiles in _COMPILERS:
                compiles(node)
                if not node.is_leaf:
                    yield
            yield
        for own in (
            "_default",
            "_prune",
            "_prune_embedded",
            "_embedded_meta",
            "_check",
            "_lists",
            "_embedded",
        ):
            getattr(self, own)
            yield
        self.is_compiled = True

    @cached_property
    def has_rules(self) -> bool:
        """Whether it carries CEL rules (`x-kubernetes-validations`), which are not evaluated here."""
        return has_rules(self.source)

    @cached_property
    def _default(self) -> Default | None:
        return compile_default(self.node, skip=frozenset({"metadata"}))

    @cached_property
    def defaulted(self) -> frozenset[str]:
        """The object's own fields that are filled in where they are missing."""
        return frozenset(name for name, child in self.node.properties.items() if child.default is not None)

    @cached_property
    def _prune(self) -> Prune | None:
        return compile_prune(self.node.rooted())

    @cached_property
    def _prune_embedded(self) -> Walk[str] | None:
        return compile_prune_metadata(self.node)

    @cached_property
    def _embedded_meta(self) -> Walk[FieldError] | None:
        return compile_metadata(self.node)

    @cached_property
    def _check(self) -> Check | None:
        return compile_check(self.node)

    @cached_property
    def fits(self) -> Check:
        """For built-in kinds: whether `settle_nulls`, `mismatch` and `prune` certainly have nothing to do. False says nothing.

        The root's metadata is not looked at.
        """
        return compile_fits(self.node, skip=frozenset({"metadata"}))

    @cached_property
    def _lists(self) -> Walk[FieldError] | None:
        return compile_lists(self.node)

    @cached_property
    def _embedded(self) -> Walk[FieldError] | None:
        return compile_embedded(self.node)

    def default(self, obj: Object) -> None:
        """Fills in defaults and drops nulls that may not stay, in place; metadata is left alone."""
        if self._default is not None:
            self._default(obj)

    def prune(self, obj: Object) -> list[str]:
        """Removes what the schema does not know, in place; returns the paths of what went, sorted.

        The root's apiVersion, kind and metadata stay whatever the schema says. Paths are those of
        upstream's strict decoding: `spec.foo`, `spec.items[0].bar`.
        """
        unknown = Unknown()
        if self._prune is not None:
            self._prune(obj, None, unknown)
            unknown.sort()
        if self._prune_embedded is not None:
            found: list[str] = []
            self._prune_embedded(obj, "", found)
            unknown.extend(sorted(found))
        return unknown

    def embedded_mismatch(self, obj: Object) -> str | None:
        """For custom kinds: what decoding says of the first embedded metadata of a wrong shape, None where all fit."""
        if self._embedded_meta is None:
            return None
        found: list[FieldError] = []
        self._embedded_meta(obj, "", found)
        return str(found[0]) if found else None

    def validate(self, obj: Object, old: Object | None = None) -> list[FieldError]:
        """Every error of the object against the schema, [] if it is valid.

        `old` is the object that an update replaces: errors of what did not change are then tolerated
        (CRDValidationRatcheting). CEL rules are not evaluated.
        """
        return _bounded(lambda: self._validate(obj, old))

    def _validate(self, obj: Object, old: Object | None) -> list[FieldError]:
        errors: list[FieldError] = []
        if self._check is not None and not self._check(obj):
            errors = explain(self.node, obj, old=None if old is None else Correlated(self.node, obj, old))
        if self._embedded is not None:
            self._embedded(obj, "", errors)
        if self._lists is not None:
            self._validate_lists(obj, old, errors)
        return errors

    def mismatch(self, obj: Object, kind: str) -> str | None:
        """For built-in kinds: what Go's decoder says of the first value of a wrong type, None where all fit."""
        if self._check is None or self._check(obj):
            return None
        return mismatch(self.node, obj, kind, self.go_types)

    def unconvertible(self, obj: Object) -> str | None:
        """For built-in kinds: what reading decoded JSON into the Go type says of the first value that does not fit.

        Numbers are made to fit, in place.
        """
        return unconvertible(self.node, obj, self.go_types)

    def settle_nulls(self, obj: Object) -> None:
        """For built-in kinds: reads nulls as decoding into a Go type does, in place."""
        settle_nulls(self.node, obj)

    def validate_status(self, obj: Object, old: Object | None = None) -> list[FieldError]:
        """As `validate`, for a write of `/status`: only `.status` is held against its part of the schema."""
        return _bounded(lambda: self._validate_status(obj, old))

    def _validate_status(self, obj: Object, old: Object | None) -> list[FieldError]:
        errors: list[FieldError] = []
        node = self.node.properties.get("status")
        if node is not None and "status" in obj:
            check = compile_check(node)
            if check is not None and not check(obj["status"]):
                before = None if old is None or "status" not in old else old["status"]
                correlated = None if before is None else Correlated(node, obj["status"], before)
                errors = explain(node, obj["status"], at="status", old=correlated)
        if self._lists is not None:
            self._validate_lists(obj, old, errors)
        return errors

    def _validate_lists(self, obj: Object, old: Object | None, errors: list[FieldError]) -> None:
        assert self._lists is not None, "callers look first"
        found: list[FieldError] = []
        self._lists(obj, "", found)
        if found and old is not None:
            before: list[FieldError] = []
            self._lists(old, "", before)
            if before:
                return
        errors.extend(found)


_COMPILERS: Final[tuple[Callable[[Node], object], ...]] = (
    compile_default,
    compile_prune,
    compile_prune_metadata,
    compile_metadata,
    compile_check,
    compile_lists,
    compile_embedded,
)


def _bounded(validate: Callable[[], list[FieldError]]) -> list[FieldError]:
    refill()
    try:
        return validate()
    except TooCostly:
        return [_TOO_COSTLY]
    except RecursionError:
        return [_TOO_DEEP]


class _Cache:
    """Compiled schemas by content, the least recently used going first. Built-in kinds are compiled on a thread of their own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[bytes, int], tuple[Schema, int, object]] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[bytes, int]) -> Schema | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: tuple[bytes, int], schema: Schema, size: int, owner: object) -> None:
        """`owner` is kept alive with the entry, since its identity is part of the key."""
        with self._lock:
            _, replaced, _ = self._kept.pop(key, (None, 0, None))
            self._kept[key] = (schema, size, owner)
            self._bytes += size - replaced
            while len(self._kept) > SCHEMAS_MAX or (self._bytes > SOURCE_BYTES_MAX and len(self._kept) > 1):
                _, (_, gone, _) = self._kept.popitem(last=False)
                self._bytes -= gone


_cache: Final = _Cache()
_definitions: Final[OrderedDict[int, tuple[Mapping[str, Object], Definitions]]] = OrderedDict()
_DEFINITIONS_MAX: Final = 64


def compile_schema(
    source: Object,
    *,
    definitions: Mapping[str, Object] | None = None,
    go_types: GoTypes | None = None,
    preserve_unknown: bool = False,
) -> Schema:
    """The schema, compiled once per content. Raises SchemaError for one that is too deep or too large.

    `definitions` resolve `$ref: "#/components/schemas/<name>"` and mark a built-in kind's published schema
    (see `node.Node` for what is read differently then); `go_types` tells what such a schema does not of the
    Go types behind it, for messages. `preserve_unknown` keeps unknown fields everywhere
    where the schema does not know better, as a CRD's deprecated `spec.preserveUnknownFields` did.
    """
    measure(source)
    if preserve_unknown:
        source = {**source, _PRESERVES: True}
    text = orjson.dumps(source, option=orjson.OPT_SORT_KEYS)
    key = (hashlib.blake2b(text, digest_size=20).digest(), 0 if definitions is None else id(definitions))
    found = _cache.get(key)
    if found is None:
        shared = None if definitions is None else _shared_definitions(definitions)
        # A private copy: the caller's object may change after it was hashed.
        own: Object = orjson.loads(text)
        found = Schema(own, node_of(own, shared))
        if go_types is not None:
            found.go_types = go_types
        found.is_compiled = definitions is not None or len(text) <= LARGE_BYTES
        _cache.put(key, found, len(text), definitions)
    return found


def compile_text(text: bytes, *, preserve_unknown: bool = False) -> Schema:
    """As `compile_schema`, of a schema as it was written. It is not read now, so it must have been accepted before."""
    # Processors have instructions for SHA-256: of a megabyte it takes a third of what the other takes.
    key = (hashlib.sha256(text).digest() + (b"preserve" if preserve_unknown else b"text"), 0)
    found = _cache.get(key)
    if found is None:
        found = _Preserving(text) if preserve_unknown else Schema(text)
        found.is_compiled = len(text) <= LARGE_BYTES
        _cache.put(key, found, len(text), None)
    return found


class _Preserving(Schema):
    """A schema that keeps unknown fields wherever it does not know better."""

    @cached_property
    @override
    def digest(self) -> bytes:
        return hashlib.sha256(b"preserving" + self._text).digest()

    @override
    def _read(self, source: Object) -> Object:
        return {**source, _PRESERVES: True}


def _shared_definitions(sources: Mapping[str, Object]) -> Definitions:
    """One Definitions for each mapping, by identity, so that all kinds of a group share their nodes."""
    known = _definitions.get(id(sources))
    if known is not None:
        return known[1]
    made = Definitions(sources)
    _definitions[id(sources)] = (sources, made)
    if len(_definitions) > _DEFINITIONS_MAX:
        _definitions.popitem(last=False)
    return made


# Accepts and keeps anything.
ANY: Final = compile_schema({"x-kubernetes-preserve-unknown-fields": True})
