"""Field sets: which fields of an object somebody owns, kept in the form in which they travel (FieldsV1).

A set is decoded JSON: a map from steps to what is below them. A step is a field `f:name`, an item of a list by its keys
`k:{"name":"a"}`, a member of a set `v:"a"`, or an index `i:0`. A field belongs to the set if nothing is below it, or
if `.` is among what is below:

    {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}      metadata.labels and metadata.labels.app, not metadata

Sets are never changed once made, so parts are shared between them. Nothing here knows a schema.

Upstream: sigs.k8s.io/structured-merge-diff v6, fieldpath (set.go, serialize.go, serialize-pe.go, element.go).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from clusterling.machinery.errors import go_quote
from clusterling.machinery.gotext import go_float

FieldSet = dict[str, "FieldSet"]
Steps = tuple[str, ...]

SELF: Final = "."
LEAF: Final[FieldSet] = {}
# How Go's JSON spells what could end a script in HTML: keys are compared as text.
_HTML: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


_SMALL: Final = re.compile(r"e-(\d)$").sub


class FieldSetError(ValueError):
    """Not a field set."""


# --------------------------------------------------------------------------- steps


def field_step(name: str) -> str:
    return "f:" + name


def value_step(value: object) -> str:
    """The step to a member of a set of scalars."""
    return "v:" + _canonical(value)


def key_step(keys: dict[str, Any]) -> str:
    """The step to an item of a list of maps, by the fields that tell it from others."""
    return "k:" + _canonical(keys)


def step_text(step: str) -> str:
    """A step as messages show it: `.name`, `[name="a",port=80]`, `[="a"]`, `[0]`."""
    kind, _, rest = step.partition(":")
    if kind == "f":
        return "." + rest
    if kind == "k":
        return (
            "["
            + ",".join(f"{name}={_scalar_text(value)}" for name, value in orjson.loads(rest).items())
            + "]"
        )
    if kind == "v":
        return f"[={_scalar_text(orjson.loads(rest))}]"
    return f"[{rest}]"


def path_text(path: Steps) -> str:
    """`.spec.containers[name="a"].image`."""
    return "".join(map(step_text, path))


def _scalar_text(value: object) -> str:
    """A key's value, which is a scalar but for what is refused (value.go: ToString)."""
    match value:
        case str():
            return go_quote(value)
        case float():
            return go_float(value)
        case dict():
            return "".join(f"{name}={_scalar_text(one)}" for name, one in value.items())
        case list():
            return f"[{','.join(map(_scalar_text, value))}]"
        case _:
            return orjson.dumps(value).decode()


def _canonical(value: object) -> str:
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    elif type(value) is dict:
        value = {name: _whole(value[name]) for name in sorted(value)}
    text = orjson.dumps(value).decode().translate(_HTML)
    # Go writes two digits of an exponent.
    return _SMALL(r"e-0\1", text) if type(value) is float else text


def _whole(value: object) -> object:
    return int(value) if type(value) is float and value.is_integer() and abs(value) < 1e15 else value


# --------------------------------------------------------------------------- reading and writing


def parse(wire: object) -> FieldSet:
    """A set as a client or an object has it, steps spelled as ours are. Raises FieldSetError."""
    if wire is None:
        return {}
    if type(wire) is not dict:
        raise FieldSetError("a field set must be a map")
    found: FieldSet = {}
    for step, below in wire.items():
        if step == SELF:
            continue
        spelled = step if step.startswith("f:") else _parsed_step(step)
        if spelled is not None:
            entry = _parsed_entry(below)
            before = found.get(spelled)
            found[spelled] = entry if before is None else _joined(before, entry)
    return found


def _parsed_entry(wire: object) -> FieldSet:
    if not wire and type(wire) is dict:
        return LEAF
    below = parse(wire)
    return entry_of(not below or (type(wire) is dict and SELF in wire), below) or LEAF


def _parsed_step(step: str) -> str | None:
    """None for a kind of step that is not known, which is passed over, as upstream does."""
    if len(step) < 2:
        raise FieldSetError("key must be 2 characters long:")
    if step[1] != ":":
        raise FieldSetError(f"missing colon: {step}")
    try:
        match step[0]:
            case "k":
                keys = orjson.loads(step[2:])
                if type(keys) is not dict:
                    raise FieldSetError(f"not the keys of an item: {step}")
                return key_step(keys)
            case "v":
                return value_step(orjson.loads(step[2:]))
            case "i":
                return f"i:{int(step[2:])}"
            case _:
                return None
    except (ValueError, orjson.JSONEncodeError) as error:  # What can be read may be too deep to be written.
        raise FieldSetError(f"{step}: {error}") from error


def ordered(fields: FieldSet) -> FieldSet:
    """The same set in upstream's order: the field itself, fields by name, items by their keys, values, indices."""
    entries: Iterable[tuple[str, FieldSet]] = fields.items()
    if len(fields) > 1:
        entries = sorted(entries)  # No two steps are alike: what is below them is never compared.
        if entries[-1][0] >= "g":
            entries.sort(key=lambda entry: _order(entry[0]))
    return {step: ordered(below) if below else LEAF for step, below in entries}


def _order(step: str) -> tuple[int, Any]:
    kind = step[0]
    if kind == "f":
        return 1, step
    if kind == "k":
        return 2, [(name, _value_order(value)) for name, value in orjson.loads(step[2:]).items()]
    if kind == "v":
        return 3, _value_order(orjson.loads(step[2:]))
    return (4, int(step[2:])) if kind == "i" else (0, "")


def _value_order(value: object) -> tuple[int, Any]:
    """Numbers before strings before booleans before null (value.go: Compare)."""
    if isinstance(value, bool):
        return 3, value
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 4, orjson.dumps(value)


def paths(fields: FieldSet, before: Steps = ()) -> Iterator[Steps]:
    """Every field of the set, those of one level before those below them."""
    steps = [step for step in sorted(fields, key=_order) if step != SELF]
    for step in steps:
        if is_member(fields[step]):
            yield (*before, step)
    for step in steps:
        if fields[step]:
            yield from paths(fields[step], (*before, step))


# --------------------------------------------------------------------------- membership and algebra


def is_member(entry: FieldSet) -> bool:
    """Whether the field itself belongs to the set that has this below the field's step."""
    return not entry or SELF in entry


def entry_of(member: bool, below: FieldSet) -> FieldSet | None:
    """What stands below a step, from whether the field itself belongs and what does of its children."""
    if not member:
        return below or None
    return {SELF: LEAF, **below} if below else LEAF


def has(fields: FieldSet, path: Steps) -> bool:
    found: FieldSet | None = fields
    for step in path:
        found = None if found is None else found.get(step)
    return found is not None and is_member(found)


def only(*names: Steps) -> FieldSet:
    """The set of these fields, each given by the names on the way to it."""
    fields: FieldSet = {}
    for path in names:
        fields = union(fields, of_path([field_step(name) for name in path]))
    return fields


def of_path(steps: Sequence[str]) -> FieldSet:
    """The set of one field."""
    made = LEAF
    for step in reversed(steps):
        made = {step: made}
    return made


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    if not a or not b:
        return a or b
    made = dict(a)
    for step, theirs in b.items():
        mine = made.get(step)
        made[step] = theirs if mine is None else _joined(mine, theirs)
    return made


def _joined(mine: FieldSet, theirs: FieldSet) -> FieldSet:
    if mine and theirs:
        return mine if mine is theirs else union(mine, theirs)
    whole = mine or theirs
    return whole if is_member(whole) else {SELF: LEAF, **whole}


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    made: FieldSet = {}
    for step, mine in a.items():
        theirs = b.get(step)
        if theirs is None or step == SELF:
            continue
        below = intersection(mine, theirs) if mine and theirs else LEAF
        entry = entry_of(is_member(mine) and is_member(theirs), below)
        if entry is not None:
            made[step] = entry
    return made


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is in `a` and not in `b`, field by field: `b` having a field says nothing of what is below it."""
    if not b:
        return a
    made = dict(a)
    made.pop(SELF, None)
    for step in made.keys() & b.keys():
        mine, theirs = made[step], b[step]
        taken = not theirs or SELF in theirs
        if not mine:
            # The field alone.
            if taken:
                del made[step]
            continue
        entry = entry_of(not taken and is_member(mine), _below(difference(mine, theirs)))
        if entry is None:
            del made[step]
        else:
            made[step] = entry
    return made


def covers(a: FieldSet, b: FieldSet) -> bool:
    """Whether all that is in `b` is in `a`."""
    for step, theirs in b.items():
        mine = a.get(step)
        if step == SELF:
            continue
        if (
            mine is None
            or (is_member(theirs) and not is_member(mine))
            or (theirs and not covers(mine, theirs))
        ):
            return False
    return True


def difference_below(a: FieldSet, b: FieldSet) -> FieldSet:
    """What is in `a`, and neither in `b` nor below a field of `b`."""
    if not b:
        return a
    made: FieldSet = {}
    for step, mine in a.items():
        if step == SELF:
            continue
        theirs = b.get(step)
        if theirs is None:
            made[step] = mine
        elif not is_member(theirs):
            entry = entry_of(is_member(mine), _below(difference_below(mine, theirs)))
            if entry is not None:
                made[step] = entry
    return made


def _below(fields: FieldSet) -> FieldSet:
    """What a difference left of what is below a step, which was not rebuilt if nothing was taken away."""
    return {step: below for step, below in fields.items() if step != SELF} if SELF in fields else fields
