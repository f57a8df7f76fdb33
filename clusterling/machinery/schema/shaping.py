"""Defaulting and pruning, compiled to closures that walk an object once and change it in place.

Upstream: apiextensions-apiserver `pkg/apiserver/schema/defaulting` and `…/pruning`. A closure is made only where a
walk can change something; None stands for "nothing to do below", so leaves cost a dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from clusterling.machinery.schema.node import META_FIELDS, Node

# One look-up in place of two comparisons: these loops see every value of every object.
CONTAINERS: Final = frozenset({dict, list})
# With no more children than this to look into, a map is asked for each, instead of each of its values being looked at.
_FEW: Final = 6

Default = Callable[[object], None]
# Where a walk is: the parent's place and a key or an index; None is the root.
Place = tuple["Place", "str | int"] | None

UNKNOWN_CHARACTERS_MAX: Final = 256 * 1024


class Unknown(list[str]):
    """Paths of unknown fields, as they are met. Behind `UNKNOWN_CHARACTERS_MAX` no further one is told of.

    A path is as long as the keys above it: a thousand fields below a key of a megabyte would be a gigabyte.
    """

    __slots__ = ("_characters",)

    def __init__(self) -> None:
        super().__init__()
        self._characters = 0

    def note(self, place: Place) -> None:
        if self._characters <= UNKNOWN_CHARACTERS_MAX:
            path = path_of(place)
            self._characters += len(path)
            self.append(path)


Prune = Callable[[object, Place, Unknown], None]


def json_copy(value: object) -> object:
    """A deep copy of decoded JSON."""
    if type(value) is dict:
        return {key: json_copy(item) for key, item in value.items()}
    if type(value) is list:
        return [json_copy(item) for item in value]
    return value


def path_of(place: Place) -> str:
    """`spec.items[0].bar`, as strict decoding reports an unknown field (schema/options.go: RecordUnknownField)."""
    parts: list[str] = []
    while place is not None:
        place, step = place
        if type(step) is int:
            parts.append(f"[{step}]")
        else:
            parts.append(str(step))
            if place is not None:
                parts.append(".")
    return "".join(reversed(parts))


def compile_default(node: Node, *, skip: frozenset[str] = frozenset()) -> Default | None:
    """Fills in defaults, and drops nulls where null is not allowed; None where neither can happen.

    Nulls of fields that are not nullable go if there is no default, and become the default if there is one
    (upstream runs the two passes one after the other; on one level at a time the outcome is the same).
    `skip` names properties of this level that are left alone.
    """
    if skip:
        return _default_of(node, skip)
    if node.is_leaf:
        return None

    def later(value: object) -> None:
        run: Default | None = node.compiled["default"]
        if run is not None:
            run(value)

    def make() -> Default | None:
        return _default_of(node, skip)

    return node.derived("default", make, later)


def _default_of(node: Node, skip: frozenset[str]) -> Default | None:
    children = {name: child for name, child in node.properties.items() if name not in skip}
    if not children and node.additional is None and node.items is None:
        return None
    deep: dict[str, Default | None] = dict.fromkeys(skip)
    deep |= {name: compile_default(child) for name, child in children.items()}
    additional = node.additional
    beyond = None if additional is None else compile_default(additional)
    idle = (
        # The nulls of built-in kinds are settled before (typed.py).
        node.builtin
        and beyond is None
        and not any(deep.values())
        and all(child.default is None for child in children.values())
    )
    walk_map = None if idle else _default_map(node, children, deep, beyond, skip)
    items = node.items
    walk_items = None if items is None else compile_default(items)
    null_item_stays = items is None or items.nullable or items.default is None
    if items is None:
        return walk_map
    if walk_items is None and null_item_stays:
        return walk_map if children or additional is not None else None
    item_default = items.default

    def walk(value: object) -> None:
        if type(value) is not list:
            if walk_map is not None:
                walk_map(value)
            return
        for at, item in enumerate(value):
            if item is None:
                if not null_item_stays:
                    value[at] = _complete(items, item_default)
            elif walk_items is not None and type(item) in CONTAINERS:
                walk_items(item)

    return walk


def _complete(node: Node | None, default: object) -> object:
    """A copy of a default, itself defaulted below."""
    value = json_copy(default)
    if node is not None and isinstance(value, dict | list):
        walk = compile_default(node)
        if walk is not None:
            walk(value)
    return value


def _default_map(
    node: Node,
    children: dict[str, Node],
    deep: dict[str, Default | None],
    beyond: Default | None,
    skip: frozenset[str],
) -> Default:
    scalars = [
        (name, child.default)
        for name, child in children.items()
        if child.default is not None and not isinstance(child.default, dict | list)
    ]
    compounds = [(name, child) for name, child in children.items() if isinstance(child.default, dict | list)]
    additional = node.additional
    deep_get = deep.get

    def fix_nulls(value: dict[str, object], names: list[str]) -> None:
        for name in names:
            if name in skip:
                continue
            child = children.get(name, additional)
            if child is None or child.nullable:
                continue
            if child.default is None:
                del value[name]
            else:
                value[name] = _complete(child, child.default)

    below_of = [(name, below) for name, below in deep.items() if below is not None]
    by_schema = beyond is None and len(below_of) <= _FEW

    def walk(value: object) -> None:
        if type(value) is not dict:
            return
        if None in value.values():
            fix_nulls(value, [name for name, item in value.items() if item is None])
        if by_schema:
            for name, below in below_of:
                item = value.get(name)
                if type(item) in CONTAINERS:
                    below(item)
        else:
            for name, item in value.items():
                if type(item) in CONTAINERS:
                    run = deep_get(name, beyond)
                    if run is not None:
                        run(item)
        for name, scalar in scalars:
            if name not in value:
                value[name] = scalar
        for name, child in compounds:
            if name not in value:
                value[name] = _complete(child, child.default)

    return walk


def _prune_all(value: object, place: Place, unknown: Unknown) -> None:
    """Prunes where there is no schema: every field of every map is unknown."""
    if type(value) is dict:
        for name in value:
            unknown.note((place, name))
        value.clear()
    elif type(value) is list:
        for at, item in enumerate(value):
            if type(item) in CONTAINERS:
                _prune_all(item, (place, at), unknown)


def compile_prune(node: Node) -> Prune | None:
    """Removes fields that the schema does not know, adding their paths to a list; None where all stay."""

    def later(value: object, place: Place, unknown: Unknown) -> None:
        run: Prune | None = node.compiled["prune"]
        if run is not None:
            run(value, place, unknown)

    def make() -> Prune | None:
        return _preserving(node) if node.preserve else _pruning(node)

    return node.derived("prune", make, later)


def _known_fields(node: Node) -> dict[str, Prune | None]:
    known = {name: compile_prune(child) for name, child in node.properties.items()}
    if node.embedded:
        known |= dict.fromkeys(META_FIELDS)
    return known


def _beyond(node: Node) -> Prune | None:
    """What happens to the values of additional properties: `true` keeps the field and empties maps below."""
    return compile_prune(node.additional) if node.additional is not None else _prune_all


def _pruning(node: Node) -> Prune:
    known = _known_fields(node)
    if not known and not node.additional_given and node.items is None:
        return _prune_all
    open_ended = node.additional_given
    beyond = _beyond(node) if open_ended else None
    prune_item = compile_prune(node.items) if node.items is not None else _prune_all

    knows_all_of = frozenset(known).issuperset
    known_get = known.get

    def prune(value: object, place: Place, unknown: Unknown) -> None:
        if type(value) is dict:
            if not open_ended and not knows_all_of(value):
                for name in [name for name in value if name not in known]:
                    unknown.note((place, name))
                    del value[name]
            for name, item in value.items():
                if type(item) in CONTAINERS:
                    below = known_get(name, beyond)
                    if below is not None:
                        below(item, (place, name), unknown)
        elif prune_item is not None:
            assert type(value) is list, "prune is called for maps and lists only"
            for at, item in enumerate(value):
                if type(item) in CONTAINERS:
                    prune_item(item, (place, at), unknown)

    return prune


def _preserving(node: Node) -> Prune | None:
    """`x-kubernetes-preserve-unknown-fields`: unknown fields stay, known ones are pruned below."""
    known = _known_fields(node)
    beyond = _beyond(node) if node.additional_given else None
    items = node.items
    # Below a preserving list the items are preserved too, whatever they say (pruning/algorithm.go: skipPrune).
    prune_item = None if items is None else _preserving(items)
    if all(below is None for below in known.values()) and beyond is None and prune_item is None:
        return None

    def prune(value: object, place: Place, unknown: Unknown) -> None:
        if type(value) is dict:
            for name, item in value.items():
                if type(item) in CONTAINERS:
                    below = known.get(name, beyond)
                    if below is not None:
                        below(item, (place, name), unknown)
        elif prune_item is not None and type(value) is list:
            for at, item in enumerate(value):
                if type(item) in CONTAINERS:
                    prune_item(item, (place, at), unknown)

    return prune
