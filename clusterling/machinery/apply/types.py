"""Types: how what stands in a place is merged, and the walks over objects that follow from it.

A type is what a place may hold: a scalar, a list or a map, or any of them. Walks are methods of types:

    field_set(value)          the fields that an applied configuration claims
    whole(value)              every field of a value that came or went as a whole
    compare(old, new)         what was added, modified, removed
    merge(live, applied)      the live value with what is applied laid over it
    remove(value, fields)     the value without these fields
    validate(value, …)        what is wrong with it, in upstream's words
    named(fields)             the set, with every declared field that it goes through a member
    reconciled(fields)        the set, where the schema has become atomic since it was made

Values are decoded JSON, never changed; results share parts with arguments. Lists are atomic, sets, or maps by keys;
maps are granular or atomic; a map of which nothing is declared is deduced from the value, its lists atomic.

Upstream: kube-openapi pkg/schemaconv (openapi.go, smd.go), structured-merge-diff v6 typed (compare.go, merge.go,
remove.go, tofieldset.go, validate.go, reconcile_schema.go, helpers.go).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, Final, NamedTuple

from typing_extensions import override

from clusterling.machinery.apply.fieldset import (
    LEAF,
    SELF,
    FieldSet,
    entry_of,
    field_step,
    is_member,
    key_step,
    step_text,
    union,
    value_step,
)
from clusterling.machinery.errors import go_quote, path_below
from clusterling.machinery.gotext import go_text, go_type


class TypedError(ValueError):
    """An object that is not of its type in a way that leaves its fields without names. The text is upstream's."""


class Change(NamedTuple):
    """What a comparison found below one step: entries of the three sets, None where there is nothing."""

    added: FieldSet | None = None
    modified: FieldSet | None = None
    removed: FieldSet | None = None


_MODIFIED: Final = Change(modified=LEAF)
_NOTHING: Final = Change()
_SCALARS: Final = frozenset({str, int, float, bool})
# What a scalar of each kind may be; null besides.
_FITTING: Final[Mapping[str, frozenset[type]]] = {
    "numeric": frozenset({int, float, NoneType}),
    "string": frozenset({str, NoneType}),
    "boolean": frozenset({bool, NoneType}),
    "untyped": _SCALARS | {NoneType},
}


class Type(ABC):
    """What may stand in one place. The walks are told of in the module's docstring."""

    __slots__ = ()

    @abstractmethod
    def field_set(self, value: object) -> FieldSet | None:
        """The entry of what an applied value claims; None: nothing here or below."""

    @abstractmethod
    def whole(self, value: object) -> FieldSet:
        """The entry of a value that is there on one side only."""

    @abstractmethod
    def compare(self, old: object, new: object) -> Change:
        """Both are there; they may be null."""

    @abstractmethod
    def merge(self, live: object, applied: object) -> object:
        """Both are there; they may be null."""

    @abstractmethod
    def remove(self, value: object, fields: FieldSet) -> object:
        """None where nothing is left."""

    @abstractmethod
    def validate(self, value: object, path: str, *, duplicates: bool) -> Iterator[str]:
        """Errors as `path: words`; `duplicates` allows items of sets and maps that are the same."""

    @abstractmethod
    def named(self, fields: FieldSet) -> FieldSet: ...

    @abstractmethod
    def reconciled(self, fields: FieldSet) -> FieldSet:
        """The entry of a field, which has something below, as this type has it now."""


class Scalar(Type):
    """`kind`: numeric, string, boolean or untyped."""

    __slots__ = ("fitting", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.fitting = _FITTING[kind]

    @override
    def field_set(self, value: object) -> FieldSet | None:
        return LEAF

    @override
    def whole(self, value: object) -> FieldSet:
        return LEAF

    @override
    def compare(self, old: object, new: object) -> Change:
        return _NOTHING if same(old, new) else _MODIFIED

    @override
    def merge(self, live: object, applied: object) -> object:
        return applied

    @override
    def remove(self, value: object, fields: FieldSet) -> object:
        return value

    @override
    def validate(self, value: object, path: str, *, duplicates: bool) -> Iterator[str]:
        if type(value) in self.fitting:
            return
        match self.kind:
            case "numeric":
                yield _at(path, f"expected numeric (int or float), got {go_type(value)}")
            case "string":
                yield _at(path, f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}")
            case "boolean":
                yield _at(path, f"expected boolean, got &{{{go_text(value)}}}")
            case _:
                yield _at(path, f"expected any scalar, got &{{{go_text(value)}}}")

    @override
    def named(self, fields: FieldSet) -> FieldSet:
        return fields

    @override
    def reconciled(self, fields: FieldSet) -> FieldSet:
        return fields


def nothing_declared(name: str) -> Type | None:
    """What a map of any fields declares."""
    return None


class MapType(Type):
    """A map. `declared` finds the type of a declared field; `element` is that of any other, None where none may be."""

    __slots__ = ("_known", "_of_scalars", "_untyped", "atomic", "declared", "deduced", "element", "mixed")

    def __init__(
        self,
        declared: Callable[[str], Type | None],
        element: Type | None,
        *,
        atomic: bool = False,
        deduced: bool = False,
        mixed: bool = True,
    ) -> None:
        self.declared = declared
        self._known: dict[str, tuple[str, Type]] = {}
        self.element = element
        self.atomic = atomic
        self.deduced = deduced
        # Somewhere in it may be values of any type, of which Python thinks that 1 is true.
        self.mixed = mixed
        # Fields of any name and of no one type, which upstream does not tell from fields it knows nothing of.
        self._untyped = deduced or (declared is nothing_declared and _is_untyped(element))
        # Labels, data: fields of any name, none with anything below.
        self._of_scalars = element if declared is nothing_declared and isinstance(element, Scalar) else None

    def field(self, name: str) -> tuple[str, Type] | None:
        """The step and the type of a declared field."""
        found = self._known.get(name)
        if found is None:
            declared = self.declared(name)
            if declared is not None:
                found = self._known[name] = field_step(name), declared
        return found

    def _below(self, name: str) -> tuple[str, Type]:
        found = None if self.declared is nothing_declared else self.field(name)
        # A field that is not in the schema is of no kind; upstream does not get that far with one.
        return (field_step(name), self.element or DEDUCED) if found is None else found

    @override
    def field_set(self, value: object) -> FieldSet | None:
        if self.atomic:
            return LEAF
        if type(value) is not dict:
            return None
        if self._of_scalars is not None:
            return {field_step(name): LEAF for name in value} or None
        made: FieldSet = {}
        known = self._known
        for name, item in value.items():
            step, below = known.get(name) or self._below(name)
            if type(below) is Scalar:
                made[step] = LEAF
                continue
            entry = below.field_set(item)
            if item is None or item == {} or name not in known:
                entry = entry_of(True, _without_self(entry or LEAF))
            if entry is not None:
                made[step] = entry
        return made or None

    @override
    def whole(self, value: object) -> FieldSet:
        if self.atomic or type(value) is not dict or not value:
            return LEAF
        made: FieldSet = {SELF: LEAF}
        if self._of_scalars is not None:
            made.update([(field_step(name), LEAF) for name in value])
            return made
        known = self._known
        for name, item in value.items():
            step, below = known.get(name) or self._below(name)
            made[step] = below.whole(item)
        return made

    @override
    def compare(self, old: object, new: object) -> Change:
        if not (self.atomic or self.mixed) and old == new:
            return _NOTHING
        before: Mapping[str, Any] = old if type(old) is dict else {}
        after: Mapping[str, Any] = new if type(new) is dict else {}
        if self.atomic or not (before or after):
            return _NOTHING if same(old, new) else _MODIFIED
        added: FieldSet = {}
        sets: tuple[FieldSet, FieldSet, FieldSet] = added, {}, {}
        known = self._known
        for name, item in after.items():
            if name not in before:
                step, below = known.get(name) or self._below(name)
                added[step] = below.whole(item)
                continue
            mine = before[name]
            if type(item) is str and item == mine:
                continue
            step, below = known.get(name) or self._below(name)
            change = below.compare(mine, item)
            if change is not _NOTHING:
                _note(sets, step, change)
        if len(before) + len(added) != len(after):
            for name, item in before.items():
                if name not in after:
                    step, below = self._below(name)
                    sets[2][step] = below.whole(item)
        return _change(sets)

    def gained(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> FieldSet:
        """What `compare` says was added or modified, for a map that is not atomic: all that there is to say of a new object."""
        made: FieldSet = {}
        known = self._known
        for name, item in new.items():
            if name not in old:
                step, below = known.get(name) or self._below(name)
                made[step] = below.whole(item)
                continue
            mine = old[name]
            if type(item) is str and item == mine:
                continue
            step, below = known.get(name) or self._below(name)
            entry: FieldSet | None
            if type(mine) is type(item) is dict and type(below) is MapType and not below.atomic:
                entry = below.gained(mine, item) or None
            else:
                change = below.compare(mine, item)
                entry = _both(change.modified, change.added)
            if entry is not None:
                made[step] = entry
        return made

    @override
    def merge(self, live: object, applied: object) -> object:
        ours: Mapping[str, Any] = live if type(live) is dict else {}
        theirs: Mapping[str, Any] = applied if type(applied) is dict else {}
        if self.atomic or not (ours or theirs):
            return applied
        if self._of_scalars is not None:
            return {**ours, **theirs}
        made = dict(ours)
        known = self._known
        for name, item in theirs.items():
            if name in ours and type(item) not in _SCALARS:
                _, below = known.get(name) or self._below(name)
                made[name] = below.merge(ours[name], item)
            else:
                made[name] = item
        return made

    @override
    def remove(self, value: object, fields: FieldSet) -> object:
        if type(value) is not dict or not value or self.atomic:
            return None
        made: dict[str, object] = {}
        for name, item in value.items():
            step, below = self._below(name)
            entry = fields.get(step)
            if entry is None:
                made[name] = item
            elif not is_member(entry):
                made[name] = below.remove(item, entry)
        return made or None

    @override
    def validate(self, value: object, path: str, *, duplicates: bool) -> Iterator[str]:
        if value is None:
            return
        if type(value) is not dict:
            yield _at(path, f"expected map, got &{{{go_text(value)}}}")
            return
        if self._of_scalars is not None and self._of_scalars.fitting.issuperset(map(type, value.values())):
            return
        known = self._known
        for name, item in value.items():
            found = known.get(name) or self.field(name)
            below = self.element if found is None else found[1]
            if below is None:
                yield _at(path_below(path, f".{name}"), "field not declared in schema")
                return
            if type(below) is not Scalar or type(item) not in below.fitting:
                yield from below.validate(item, path_below(path, f".{name}"), duplicates=duplicates)

    @override
    def named(self, fields: FieldSet) -> FieldSet:
        made: FieldSet = {}
        for step, entry in fields.items():
            if not entry:
                made[step] = entry
                continue
            name = step[2:] if step.startswith("f:") else None
            found = None if name is None else self.field(name)
            below = self.element if found is None else found[1]
            inner = entry if below is None or name is None else below.named(entry)
            made[step] = {SELF: LEAF, **inner} if found is not None and SELF not in inner else inner
        return made

    @override
    def reconciled(self, fields: FieldSet) -> FieldSet:
        if self._untyped:
            return fields
        if self.atomic:
            return LEAF
        return _reconciled_below(fields, self._type_at)

    def _type_at(self, step: str) -> Type | None:
        found = self.field(step[2:]) if step.startswith("f:") else None
        return self.element if found is None else found[1]


class ListType(Type):
    """A list: atomic, a set (`keys` empty) or a map by keys. `defaults`: what a key counts as where it is missing."""

    __slots__ = ("_defaults", "_keys_given", "atomic", "element", "keys", "mixed")

    def __init__(
        self,
        element: Type,
        *,
        atomic: bool,
        keys: tuple[str, ...],
        defaults: Mapping[str, object],
        mixed: bool = True,
    ) -> None:
        self.element = element
        self.mixed = mixed
        self.atomic = atomic
        self.keys = tuple(sorted(keys))
        self._keys_given = keys
        self._defaults = defaults

    def step(self, item: object) -> str:
        """The step to an item. Raises TypedError for one that has none."""
        if not self.keys:
            return _member_step(item)
        if item is None:
            raise TypedError("associative list with keys may not have a null element")
        if type(item) is not dict:
            raise TypedError("associative list with keys may not have non-map elements")
        found: dict[str, object] = {}
        for key in self.keys:
            if key in item:
                found[key] = item[key]
            elif self._defaults.get(key) is not None:
                found[key] = self._defaults[key]
        if not found:
            keys = " ".join(map(go_quote, self._keys_given))
            raise TypedError(
                f"associative list with keys has an element that omits all key fields [{keys}] (and doesn't have default values for any key fields)"
            )
        return key_step(found)

    def _steps(self, items: list[Any]) -> list[str]:
        made = []
        for at, item in enumerate(items):
            try:
                made.append(self.step(item))
            except TypedError as error:
                raise TypedError(f"element {at}: {error}") from error
        return made

    def _grouped(self, items: list[Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for step, item in zip(self._steps(items), items, strict=True):
            found.setdefault(step, []).append(item)
        return found

    @override
    def field_set(self, value: object) -> FieldSet | None:
        if self.atomic:
            return LEAF
        if type(value) is not list or not value:
            return None
        made: FieldSet = {}
        for step, items in self._grouped(value).items():
            # What is there twice is owned as one.
            below = None if len(items) > 1 else self.element.field_set(items[0])
            made[step] = entry_of(True, _without_self(below or LEAF)) or LEAF
        return made

    @override
    def whole(self, value: object) -> FieldSet:
        if self.atomic or type(value) is not list or not value:
            return LEAF
        made: FieldSet = {SELF: LEAF}
        for step, items in self._grouped(value).items():
            made[step] = LEAF if len(items) > 1 else self.element.whole(items[0])
        return made

    @override
    def compare(self, old: object, new: object) -> Change:
        if not (self.atomic or self.mixed) and old == new:
            return _NOTHING
        before = old if type(old) is list else []
        after = new if type(new) is list else []
        if self.atomic or not (before or after):
            return _NOTHING if same(old, new) else _MODIFIED
        sets: tuple[FieldSet, FieldSet, FieldSet] = {}, {}, {}
        left, right = self._grouped(before), self._grouped(after)
        for step in {**left, **right}:
            _note(sets, step, self._compared(left.get(step, []), right.get(step, [])))
        return _change(sets)

    def _compared(self, left: list[Any], right: list[Any]) -> Change:
        """Items of one step, of which there may be several on a side: then they are one value together."""
        if len(left) > 1 and len(right) > 1:
            return _NOTHING if same(left, right) else _MODIFIED
        if len(left) > 1:
            return Change(added=self.element.whole(right[0]) if right else None, removed=LEAF)
        if len(right) > 1:
            return Change(added=LEAF, removed=self.element.whole(left[0]) if left else None)
        if left and right:
            return self.element.compare(left[0], right[0])
        if right:
            return Change(added=self.element.whole(right[0]))
        return Change(removed=self.element.whole(left[0]))

    @override
    def merge(self, live: object, applied: object) -> object:
        ours = live if type(live) is list else []
        theirs = applied if type(applied) is list else []
        if self.atomic or not (ours or theirs):
            return applied
        return self._merged(ours, theirs)

    def _merged(self, ours: list[Any], theirs: list[Any]) -> list[Any]:
        """The items of both: shared ones in the order applied, the others where they stood among those."""
        left, right = self._steps(ours), self._steps(theirs)
        once: dict[str, Any] = {}
        for step, item in zip(left, ours, strict=True):
            once[step] = _TWICE if step in once else item
        wanted: dict[str, Any] = {}
        for step, item in zip(right, theirs, strict=True):
            if step in wanted:
                raise TypedError(f"duplicate entries for key {step_text(step)}")
            wanted[step] = item
        shared = iter([step for step in right if step in once])
        awaited = next(shared, None)
        done: set[str] = set()
        made: list[Any] = []
        i = j = 0

        def take(step: str) -> None:
            done.add(step)
            mine = once.get(step, _TWICE)
            made.append(wanted[step] if mine is _TWICE else self.element.merge(mine, wanted[step]))

        while i < len(left) or j < len(right):
            if i < len(left) and j < len(right):
                if left[i] == right[j]:
                    take(left[i])
                    i, j, awaited = i + 1, j + 1, next(shared, None)
                    continue
                if left[i] in wanted and awaited is not None and left[i] != awaited:
                    i += 1  # Its turn comes where it is applied.
                    continue
            if i < len(left):
                if left[i] not in wanted:
                    made.append(ours[i])
                    i += 1
                    continue
                if left[i] in done:
                    i += 1
            if j < len(right):
                step = right[j]
                take(step)
                j += 1
                if awaited == step:
                    awaited = next(shared, None)
        return made

    @override
    def remove(self, value: object, fields: FieldSet) -> object:
        if type(value) is not list or not value or self.atomic:
            return None
        made: list[object] = []
        for step, item in zip(self._steps(value), value, strict=True):
            entry = fields.get(step)
            if entry is None:
                made.append(item)
            elif not is_member(entry):
                left = self.element.remove(item, entry)
                if left is not None:
                    made.append(left)
        return made or None

    @override
    def validate(self, value: object, path: str, *, duplicates: bool) -> Iterator[str]:
        if value is None:
            return
        if type(value) is not list:
            yield _at(path, f"expected list, got &{{{go_text(value)}}}")
            return
        seen: set[str] = set()
        for at, item in enumerate(value):
            step = f"i:{at}"
            if not self.atomic:
                try:
                    step = self.step(item)
                except TypedError as error:
                    yield _at(path, f"element {at}: {error}")
                    return
                if step in seen and not duplicates:
                    yield _at(path, f"duplicate entries for key {step_text(step)}")
                seen.add(step)
            yield from self.element.validate(item, path_below(path, step_text(step)), duplicates=duplicates)

    @override
    def named(self, fields: FieldSet) -> FieldSet:
        return {
            step: self.element.named(entry) if entry and step.startswith("k:") else entry
            for step, entry in fields.items()
        }

    @override
    def reconciled(self, fields: FieldSet) -> FieldSet:
        if self.atomic:
            return LEAF
        return _reconciled_below(fields, lambda step: self.element)


class Deduced(Type):
    """A place that may hold several kinds: the value tells which it is."""

    __slots__ = ("list", "map", "scalar")

    def __init__(self, scalar: Scalar | None, items: ListType | None, mapping: MapType | None) -> None:
        self.scalar = scalar
        self.list = items
        self.map = mapping

    def of(self, value: object) -> Type:
        kind = type(value)
        if kind is dict and self.map is not None:
            return self.map
        if kind is list and self.list is not None:
            return self.list
        if kind in _SCALARS and self.scalar is not None:
            return self.scalar
        return self._first()

    def _first(self) -> Type:
        first = self.map or self.scalar or self.list
        assert first is not None, "a type is of some kind"
        return first

    @override
    def field_set(self, value: object) -> FieldSet | None:
        return self.of(value).field_set(value)

    @override
    def whole(self, value: object) -> FieldSet:
        return self.of(value).whole(value)

    @override
    def compare(self, old: object, new: object) -> Change:
        before, after = self.of(old), self.of(new)
        if before is after:
            return before.compare(old, new)
        # Both readings count: what the old kind makes of the two, and what the new one does.
        one, other = before.compare(old, new), after.compare(old, new)
        return Change(*(_both(a, b) for a, b in zip(one, other, strict=True)))

    @override
    def merge(self, live: object, applied: object) -> object:
        return self.of(applied).merge(live, applied)

    @override
    def remove(self, value: object, fields: FieldSet) -> object:
        return self.of(value).remove(value, fields)

    @override
    def validate(self, value: object, path: str, *, duplicates: bool) -> Iterator[str]:
        return self.of(value).validate(value, path, duplicates=duplicates)

    @override
    def named(self, fields: FieldSet) -> FieldSet:
        if self.map is not None and any(step.startswith("f:") for step in fields):
            return self.map.named(fields)
        return self.list.named(fields) if self.list is not None else fields

    @override
    def reconciled(self, fields: FieldSet) -> FieldSet:
        return self._first().reconciled(fields)


def _is_untyped(kind: Type | None) -> bool:
    scalar = kind.scalar if isinstance(kind, Deduced) else kind
    return isinstance(scalar, Scalar) and scalar.kind == "untyped"


_TWICE: Final = object()


def same(a: object, b: object) -> bool:
    """Equal as Go's values are: a boolean is no number."""
    if type(a) is dict and type(b) is dict:
        return a.keys() == b.keys() and all(same(item, b[name]) for name, item in a.items())
    if type(a) is list and type(b) is list:
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and (type(a) is bool) == (type(b) is bool)


def _without_self(entry: FieldSet) -> FieldSet:
    return {step: below for step, below in entry.items() if step != SELF} if SELF in entry else entry


def _both(a: FieldSet | None, b: FieldSet | None) -> FieldSet | None:
    if a is None or b is None:
        return b if a is None else a
    return entry_of(is_member(a) or is_member(b), _without_self(union(a, b)))


def _note(sets: tuple[FieldSet, FieldSet, FieldSet], step: str, change: Change) -> None:
    added, modified, removed = change
    if added is not None:
        sets[0][step] = added
    if modified is not None:
        sets[1][step] = modified
    if removed is not None:
        sets[2][step] = removed


def _change(sets: tuple[FieldSet, FieldSet, FieldSet]) -> Change:
    added, modified, removed = sets
    return Change(added or None, modified or None, removed or None) if any(sets) else _NOTHING


def _member_step(item: object) -> str:
    match item:
        case dict():
            raise TypedError("associative list without keys has an element that's a map type")
        case list():
            raise TypedError("not supported: associative list with lists as elements")
        case None:
            raise TypedError("associative list without keys has an element that's an explicit null")
        case _:
            return value_step(item)


def _reconciled_below(fields: FieldSet, type_at: Callable[[str], Type | None]) -> FieldSet:
    made: FieldSet | None = None
    for step, entry in fields.items():
        # What is owned as a whole stays so.
        below = type_at(step) if entry else None
        if below is None:
            continue
        now = below.reconciled(entry)
        if now is not entry:
            made = made if made is not None else dict(fields)
            made[step] = now
    return fields if made is None else made


def _at(path: str, words: str) -> str:
    return f"{path}: {words}" if path else words


def _go_syntax(value: object) -> str:
    """A decoded value as %#v prints it."""
    match value:
        case str():
            return go_quote(value)
        case list():
            return "[]interface {}{" + ", ".join(map(_go_syntax, value)) + "}"
        case dict():
            inner = ", ".join(f"{go_quote(name)}:{_go_syntax(value[name])}" for name in sorted(value))
            return "map[string]interface {}{" + inner + "}"
        case None:
            return "interface {}(nil)"
        case _:
            return go_text(value)


# --------------------------------------------------------------------------- of values of any kind


UNTYPED_SCALAR: Final = Scalar("untyped")


def _anything(*, atomic: bool) -> Deduced:
    made = Deduced(UNTYPED_SCALAR, None, None)
    items = made if atomic else ATOMIC
    made.list = ListType(items, atomic=True, keys=(), defaults={})
    made.map = MapType(nothing_declared, made, atomic=atomic, deduced=not atomic)
    return made


# A value of any kind: owned as a whole, or field by field with its lists owned as wholes.
ATOMIC: Final = _anything(atomic=True)
DEDUCED: Final = _anything(atomic=False)
