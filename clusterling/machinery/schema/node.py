"""Node: one place of a schema, read once. Everything else in this package is derived from nodes.

A schema comes from a tenant (a CRD) or from upstream's published OpenAPI (built-in kinds); the second kind has
`$ref`s into a shared set of definitions, which may be recursive, so children are read when first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from clusterling.machinery.meta import Object
from clusterling.machinery.schema.formats import format_is_known

DEPTH_MAX: Final = 200  # Objects are no deeper, so no schema needs to be.
NODES_MAX: Final = 100_000
_REF_PREFIX: Final = "#/components/schemas/"
META_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata"})

_T = TypeVar("_T")


class SchemaError(ValueError):
    """A schema that cannot be compiled: too deep, too large, or not made of maps where maps must be."""


class Definitions:
    """The shared schemas of built-in kinds; each becomes one Node, whoever refers to it."""

    __slots__ = ("_nodes", "_sources")

    def __init__(self, sources: Mapping[str, Object]) -> None:
        self._sources = sources
        self._nodes: dict[str, Node] = {}

    def node(self, name: str) -> Node:
        """Raises SchemaError for a name that is not defined."""
        found = self._nodes.get(name)
        if found is None:
            if name not in self._sources:
                raise SchemaError(f"no definition {name}")
            found = self._nodes[name] = Node(self._sources[name], self)
        return found


class Node:
    """One schema position. `definitions` set: a built-in kind, whose published schema is read with these differences:

    a map without any properties holds anything (RawExtension), and a default that is the zero value is
    no default: it only says that the Go field is not a pointer.

    `like` is a node whose children this one shares. `compiled` keeps what the rest of the package derives.
    """

    __slots__ = (
        "_additional",
        "_items",
        "_like",
        "_properties",
        "additional_given",
        "builtin",
        "compiled",
        "default",
        "definitions",
        "embedded",
        "format",
        "in_branch",
        "is_leaf",
        "list_type",
        "map_keys",
        "nullable",
        "preserve",
        "required",
        "source",
        "types",
    )

    def __init__(
        self, source: Object, definitions: Definitions | None = None, like: Node | None = None
    ) -> None:
        if not isinstance(source, dict):
            raise SchemaError("a schema must be an object")
        self.source = source
        self.definitions = definitions
        self.in_branch = False
        self.builtin = definitions is not None
        self._like = like
        self.compiled: dict[str, Any] = {}
        self._properties: dict[str, Node] | None = None
        self._items: Node | None = None
        self._additional: Node | None = None
        named = source.get("type") or ""
        self.types: tuple[str, ...] = (named,) if named else ()
        # A built-in kind's schema says the same by a format.
        either = self.builtin and source.get("format") == "int-or-string"
        if source.get("x-kubernetes-int-or-string") or either:
            self.types = ("integer", "string")
        kind = self.types[0] if len(self.types) == 1 else ""
        wanted = source.get("format") or ""
        # The bytes of a built-in kind may be empty; upstream's check of the format says they may not.
        known = format_is_known(kind, wanted) and not (self.builtin and wanted == "byte")
        self.format: str = wanted if known else ""
        self.nullable = bool(source.get("nullable"))
        self.required: tuple[str, ...] = tuple(source.get("required") or ())
        self.embedded = bool(source.get("x-kubernetes-embedded-resource"))
        self.list_type: str = source.get("x-kubernetes-list-type") or ""
        self.map_keys: tuple[str, ...] = tuple(source.get("x-kubernetes-list-map-keys") or ())
        self.additional_given = source.get("additionalProperties") is not None
        self.preserve = bool(source.get("x-kubernetes-preserve-unknown-fields")) or (
            self.builtin
            and not either
            and not source.get("properties")
            and not self.additional_given
            and source.get("items") is None
        )
        # Nothing is below it: what looks for something there need not be made for it.
        self.is_leaf = (
            not self.additional_given and not source.get("properties") and source.get("items") is None
        )
        default = source.get("default")
        self.default: object = None if self.builtin and not default else default

    @property
    def properties(self) -> dict[str, Node]:
        if self._like is not None:
            return self._like.properties
        if self._properties is None:
            found = self.source.get("properties") or {}
            self._properties = {name: self._made(schema) for name, schema in found.items()}
        return self._properties

    def growing(self) -> Iterator[None]:
        """Reads the properties one by one, for `properties` to be there at once afterwards."""
        if self._like is None and self._properties is None:
            made = {}
            for name, schema in (self.source.get("properties") or {}).items():
                made[name] = self._made(schema)
                yield
            self._properties = made

    @property
    def items(self) -> Node | None:
        if self._like is not None:
            return self._like.items
        found = self.source.get("items")
        if self._items is None and found is not None:
            self._items = self._made(found)
        return self._items

    @property
    def additional(self) -> Node | None:
        """The schema of further properties; None also where `additionalProperties` is only true or false."""
        if self._like is not None:
            return self._like.additional
        found = self.source.get("additionalProperties")
        if self._additional is None and isinstance(found, dict):
            self._additional = self._made(found)
        return self._additional

    @property
    def forbids_additional(self) -> bool:
        return self.source.get("additionalProperties") is False

    def derived(self, what: str, make: Callable[[], _T], later: object) -> _T:
        """What `make` makes of this node, made once.

        A recursive definition meets itself while it is made and gets `later`, which looks it up in `compiled` when it runs.
        """
        if what not in self.compiled:
            self.compiled[what] = later
            self.compiled[what] = make()
        made: _T = self.compiled[what]
        return made

    def branches(self, keyword: str) -> list[Node]:
        """The schemas of `allOf`, `anyOf` or `oneOf`."""
        kept: list[Node] | None = self.compiled.get(keyword)
        if kept is None:
            kept = [self._made(one, branch=True) for one in self.source.get(keyword) or ()]
            self.compiled[keyword] = kept
        return kept

    @property
    def negated(self) -> Node | None:
        found = self.source.get("not")
        kept: Node | None = self.compiled.get("not")
        if kept is None and found is not None:
            kept = self.compiled["not"] = self._made(found, branch=True)
        return kept

    def _made(self, source: Object, *, branch: bool = False) -> Node:
        """A node below this one. What is in a branch is looked at again and again, so its steps are counted."""
        made = node_of(source, self.definitions)
        if branch or self.in_branch:
            made.in_branch = True
        return made

    def rooted(self) -> Node:
        """The same schema as the root of an object: apiVersion, kind and metadata always belong."""
        if self.embedded:
            return self
        return Node({**self.source, "x-kubernetes-embedded-resource": True}, self.definitions, like=self)


def node_of(source: Object, definitions: Definitions | None = None) -> Node:
    """The node of a schema, its `$ref` followed: published schemas have one by itself, or in an `allOf` of one
    beside a default. Recursive definitions come back to the same node."""
    if definitions is None:
        return Node(source)
    if not isinstance(source, dict):
        raise SchemaError("a schema must be an object")
    reference = source.get("$ref")
    branches = source.get("allOf")
    if reference is None and branches and len(branches) == 1:
        reference = branches[0].get("$ref")
    if not isinstance(reference, str):
        return Node(source, definitions)
    target = definitions.node(reference.removeprefix(_REF_PREFIX))
    beside = {key: value for key, value in source.items() if key not in ("$ref", "allOf", "description")}
    return Node({**target.source, **beside}, definitions, like=target) if beside else target


def measure(source: Object) -> None:
    """Raises SchemaError for a schema deeper or larger than a schema may be. Costs about 0.2 µs a value."""
    level: list[object] = [source]
    depth = nodes = 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > 3 * DEPTH_MAX or nodes > 10 * NODES_MAX:
            raise SchemaError("the schema is too deep or too large")
        below: list[object] = []
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
            elif type(value) is list:
                below.extend(value)
        level = below


def has_rules(source: object) -> bool:
    """Whether the schema carries CEL rules anywhere."""
    stack = [source]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            if value.get("x-kubernetes-validations"):
                return True
            stack.extend(value.values())
        elif type(value) is list:
            stack.extend(value)
    return False
