"""Strategic merge patch, Kubernetes' own: lists merge by key, and directives begin with `$`.

    strategic_merge(doc, patch, schema)

What it does with a field is in the kind's OpenAPI schema (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`),
read through `PatchMeta`. Behaviour, texts and codes are those of `apimachinery/pkg/util/strategicpatch`,
`apimachinery/pkg/util/mergepatch` and `apiserver/pkg/endpoints/handlers/patch.go`; where upstream depends on the order of a
Go map, ours is the patch's. The theory and rules are those of patch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from clusterling.machinery.errors import ApiError, bad_request, go_quote
from clusterling.machinery.gotext import go_string, go_text, go_type, json_type
from clusterling.machinery.meta import Object
from clusterling.machinery.patch import broken, check_nesting, copied, rejected

_DIRECTIVE: Final = "$patch"
_RETAIN_KEYS: Final = "$retainKeys"
_DELETE_ITEMS: Final = "$deleteFromPrimitiveList"
_ELEMENT_ORDER: Final = "$setElementOrder"


@dataclass(frozen=True, slots=True)
class PatchField:
    """How one field is patched. `strategy` is `merge`, `replace` or empty; `merge_key` names the key of its items.

    `value` describes the field's own value, `items` those of its list.
    """

    value: PatchMeta
    items: PatchMeta
    strategy: str = ""
    merge_key: str = ""


class PatchMeta:
    """What a schema says about patching: field → how. Read lazily from OpenAPI v3 and kept, for schemas recurse."""

    __slots__ = ("_definitions", "_fields", "_name", "_schema")

    def __init__(
        self, name: str, schema: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._name = name
        self._schema = schema
        self._definitions = definitions
        self._fields: dict[str, PatchField] = {}

    @classmethod
    def from_openapi(
        cls, schema: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]
    ) -> PatchMeta:
        """The patch rules of an OpenAPI v3 schema; `definitions` are its document's `components.schemas`.

        Follows `$ref` and the `allOf` of one that upstream wraps references in. Raises KeyError for a dangling one
        (when that field is first patched).
        """
        name = ""
        if "allOf" in schema:
            schema = schema["allOf"][0]
        if reference := schema.get("$ref"):
            key = reference.rpartition("/")[2]
            name, schema = key.rpartition(".")[2], definitions[key]
        elif kinds := schema.get("x-kubernetes-group-version-kind"):
            name = kinds[0].get("kind", "")
        return cls(name, schema, definitions)

    def field(self, name: str) -> PatchField:
        """How the field is patched. Raises LookupError, in upstream's words, where the type has no such field.

        Upstream looks no further into maps (`additionalProperties`) and raw JSON: two values of one key of those
        cannot be merged if they are maps or lists. What has no schema at all merges maps and replaces lists.
        """
        found = self._fields.get(name)
        if found is not None:
            return found
        properties = self._schema.get("properties") or {}
        if name in properties:
            # Only a type's own fields are kept: names of the tenant's would fill the memory.
            return self._fields.setdefault(name, self._read(properties[name]))
        if not properties and isinstance(self._schema.get("additionalProperties"), Mapping):
            raise LookupError("merging an object in json but data type is not struct, instead is: map")
        if properties or self._name:
            struct = f" in struct {self._name} for the json field" if self._name else ""
            raise LookupError(f"unable to find api field{struct} {go_quote(name)}")
        return PatchField(_UNTYPED, _UNTYPED)

    def _read(self, schema: Mapping[str, Any]) -> PatchField:
        value = PatchMeta.from_openapi(schema, self._definitions)
        items = value._schema.get("items")
        strategies = [
            one for one in schema.get("x-kubernetes-patch-strategy", "").split(",") if one != "retainKeys"
        ]
        return PatchField(
            value=value,
            items=PatchMeta.from_openapi(items, self._definitions)
            if isinstance(items, Mapping)
            else _UNTYPED,
            strategy=strategies[0] if strategies else "",
            merge_key=schema.get("x-kubernetes-patch-merge-key", ""),
        )


_UNTYPED: Final = PatchMeta("", {}, {})


def strategic_merge(doc: Object, patch: object, schema: PatchMeta) -> Object:
    """Applies a strategic merge patch. What the type does not know (directives in new values, nulls within replaced
    lists) stays in the result for the decoder to drop, as upstream leaves it to its own.

    Raises ApiError: 400 for a malformed directive, 422 for lists of lists, and 500 with upstream's text where
    upstream did not foresee the error (a list item without its merge key, an order that does not fit the list).
    """
    return strategic_merge_left(doc, patch, schema)[0]


def strategic_merge_left(doc: Object, patch: object, schema: PatchMeta) -> tuple[Object, Object]:
    """The same, with what is left of the patch: upstream takes directives out as it goes, and shows the rest in messages."""
    if patch is None:
        return doc, {}
    if not isinstance(patch, dict):
        kind = json_type(patch)
        raise bad_request(f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
    check_nesting(patch)
    left: Object = copied(patch)
    return _merge_map(doc, left, schema), left


def _merge_map(original: Object, patch: Object, meta: PatchMeta) -> Object:
    """The patch is ours: what is done with is taken out of it, and the result may share parts with it."""
    if _DIRECTIVE in patch:
        return _directed(patch)
    result = dict(original)
    _retain_keys(result, patch)
    _merge_ordered_lists(result, patch, meta)
    for given, value in patch.items():
        deleting = given.startswith(_DELETE_ITEMS)
        key = _directed_field(given, _DELETE_ITEMS) if deleting else given
        if value is None:
            result.pop(key, None)
            continue
        current = result.get(key)
        if type(current) is not type(value):
            # Not there, or of another type: just what the patch says.
            if not deleting:
                _drop_nulls(value)
                _assign(result, key, value)
        elif isinstance(value, dict):
            field = _field(meta, key)
            result[key] = (
                value if field.strategy == "replace" else _merge_map(result[key], value, field.value)
            )
        elif isinstance(value, list):
            field = _field(meta, key)
            if field.strategy == "merge" or deleting:
                result[key] = _merge_list(result[key], value, field, deleting=deleting)
            else:
                result[key] = value
        else:
            result[key] = value
    return result


def _directed(patch: Object) -> Object:
    """The value that a map with `$patch` becomes, whatever was there."""
    match patch[_DIRECTIVE]:
        case "replace":
            del patch[_DIRECTIVE]
            return patch
        case "delete":
            return {}
        case directive:
            raise broken(f"unknown patch type: {go_string(directive)} in map: {go_text(patch)}")


def _field(meta: PatchMeta, name: str) -> PatchField:
    try:
        return meta.field(name)
    except LookupError as error:
        raise broken(str(error.args[0])) from error


def _drop_nulls(value: Any) -> None:
    """Takes null values out of maps, at any depth. Null items of lists stay."""
    if isinstance(value, dict):
        for key in [key for key, item in value.items() if item is None]:
            del value[key]
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _drop_nulls(item)


def _assign(result: Object, key: str, value: object) -> None:
    kept, keep = _without_directives(value)
    if keep:
        result[key] = kept
    else:
        result.pop(key, None)


def _without_directives(value: Any) -> tuple[Any, bool]:
    """The value less the maps in it that have a `$patch`, and whether it is to be kept itself. Maps change in place."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None, False
        for key, item in list(value.items()):
            value[key], keep = _without_directives(item)
            if not keep:
                del value[key]
        return value, True
    if isinstance(value, list):
        return [item for item, keep in map(_without_directives, value) if keep], True
    return value, True


def _directed_field(key: str, prefix: str) -> str:
    """`finalizers` of `$deleteFromPrimitiveList/finalizers`."""
    found, slash, field = key.partition("/")
    if not slash or found != prefix:
        what = "primitive list" if prefix == _DELETE_ITEMS else "setElementOrder list"
        raise bad_request(f"invalid patch format of {what}")
    return field


def _retain_keys(result: Object, patch: Object) -> None:
    """`$retainKeys`: of what is there, only these stay; the patch must not bring others."""
    if _RETAIN_KEYS not in patch:
        return
    listed = patch.pop(_RETAIN_KEYS)
    if not isinstance(listed, list):
        raise bad_request("invalid patch format of retainKeys")
    keys = {key for key in listed if isinstance(key, str)}
    for key, value in patch.items():
        if value is not None and key not in keys and not key.startswith((_DELETE_ITEMS, _ELEMENT_ORDER)):
            raise bad_request("invalid patch format of retainKeys")
    for key in result.keys() - keys:
        del result[key]


# Lists. An item is known by its token: of a scalar its type and value, of a map those of its merge key.


def _token(value: object) -> object:
    """Equal for values that Go compares as equal: 1, 1.0 and true differ. A map or list equals nothing."""
    return object() if isinstance(value, dict | list) else (type(value), value)


def _no_merge_key(item: Object, merge_key: str) -> ApiError:
    return broken(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")


def _bad_type(expected: object, actual: object) -> ApiError:
    return broken(f"expected a {go_type(expected)}, but received a {go_type(actual)}")


def _key_token(item: object, merge_key: str) -> object:
    """The token of an item, which is a map if there is a merge key. Raises ApiError where that is not so."""
    return _map_token(item, merge_key) if merge_key else _token(item)


def _map_token(item: object, merge_key: str) -> object:
    if not isinstance(item, dict):
        raise _bad_type({}, item)
    if merge_key not in item:
        raise _no_merge_key(item, merge_key)
    return _token(item[merge_key])


def _merge_ordered_lists(result: Object, patch: Object, meta: PatchMeta) -> None:
    """`$setElementOrder/<field>`: merges that list now, in the order given, and takes it out of the patch."""
    for directive in [key for key in patch if key.startswith(_ELEMENT_ORDER)]:
        order = patch.pop(directive)
        if not isinstance(order, list):
            raise _bad_type([], order)
        name = _directed_field(directive, _ELEMENT_ORDER)
        there, given = name in result, name in patch
        current, change = result.get(name, []), patch.get(name, [])
        for value in (current, change):
            if not isinstance(value, list):
                raise _bad_type([], value)
        field = _field(meta, name)
        _check_order(change, order, field.merge_key)
        if not there and not given:
            continue
        if not given:
            merged = current
        elif not there:
            merged, _ = _without_directives(change)
        elif field.strategy == "merge":
            merged = _merge_list(current, change, field, deleting=False)
        else:
            merged = change
        listed, rest = _partition(merged, order, field.merge_key)
        maps = _element_type(current, change) is dict
        merges = maps and there and given and field.strategy == "merge"
        live = _live_order(current, change, field.merge_key) if merges else current
        result[name] = _in_order(listed, rest, order, live, field.merge_key, maps=maps)
        patch.pop(name, None)


def _live_order(current: Sequence[Any], change: Sequence[Any], merge_key: str) -> Sequence[Any]:
    """The live list as upstream sees it once it has merged in place.

    Deleting shifts the live slice, and new items are then appended into the room that this made: as many of them as
    were deleted count as live ones, after the others, when the order is worked out.
    """
    gone = {_key_token(item, merge_key) for item in change if item.get(_DIRECTIVE) == "delete"}
    remaining = [item for item in current if _token(item.get(merge_key, _ABSENT)) not in gone]
    room = len(current) - len(remaining)
    if not room or any(item.get(_DIRECTIVE) == "replace" for item in change):
        return current
    known = {_token(item.get(merge_key, _ABSENT)) for item in remaining}
    added = {_key_token(item, merge_key): item for item in change if _DIRECTIVE not in item}
    return [*remaining, *[item for token, item in added.items() if token not in known][:room]]


def _check_order(change: Sequence[Any], order: Sequence[Any], merge_key: str) -> None:
    """The patch's items must be among those of the order, in that order; deletions need not be."""
    if not change or not order:
        return
    waiting = list(change)
    if merge_key:
        for item in waiting:
            if not isinstance(item, dict):
                raise _bad_type({}, item)
        waiting = [item for item in waiting if item.get(_DIRECTIVE) != "delete"]
    at = place = 0
    while at < len(waiting) and place < len(order):
        item = waiting[at]
        if isinstance(item, dict) and _DIRECTIVE in item:
            at += 1
            continue
        if _key_token(item, merge_key) == _key_token(order[place], merge_key):
            at += 1
        place += 1
    if at < len(waiting):
        raise broken(
            f"The order in patch list:\n{go_text(list(change))}\n doesn't match {_ELEMENT_ORDER} list:\n"
            f"{go_text(list(order))}\n"
        )


def _element_type(*lists: Sequence[Any]) -> type:
    """The one type of all items. Raises ApiError where there are several, or lists of lists."""
    found: type | None = None
    for items in lists:
        for item in items:
            if found is None:
                found = type(item)
                if found is list:
                    raise rejected()
            elif type(item) is not found:
                raise broken(f"list element types are not identical: {go_text(list(map(list, lists)))}")
    if found is None:
        raise broken("no elements in any of the given slices")
    return found


def _merge_list(
    original: Sequence[Any], patch: Sequence[Any], field: PatchField, *, deleting: bool
) -> list[Any]:
    if not original and not patch:
        return list(original)
    merge_key = field.merge_key
    maps = _element_type(original, patch) is dict
    if maps:
        if not merge_key:
            raise broken("cannot merge lists without merge key for struct")
        original, patch = _direct_items(original, patch, merge_key)
        merged = _merge_items(original, patch, merge_key, field.items)
    elif deleting:
        gone = {_token(item) for item in patch}
        return [item for item in original if _token(item) not in gone]
    else:
        merged = list({_token(item): item for item in (*original, *patch)}.values())
    listed, rest = _partition(merged, patch, merge_key)
    return _in_order(listed, rest, patch, original, merge_key, maps=maps)


def _direct_items(
    original: Sequence[Any], patch: Sequence[Any], merge_key: str
) -> tuple[Sequence[Any], Sequence[Any]]:
    """Carries out the `$patch` of single items: the list without what they delete, and the other items."""
    plain: list[Any] = []
    gone: set[object] = set()
    replace = False
    for item in patch:
        match item.get(_DIRECTIVE, ""):
            case "" if _DIRECTIVE not in item:
                plain.append(item)
            case "delete":
                gone.add(_key_token(item, merge_key))
            case "replace":
                replace = True
            case "merge":
                raise broken("merging lists cannot yet be specified in the patch")
            case directive:
                raise broken(f"unknown patch type: {go_string(directive)} in map: {go_text(item)}")
    if replace:
        return plain, []
    if gone:
        original = [item for item in original if merge_key not in item or _token(item[merge_key]) not in gone]
    return original, plain


def _merge_items(original: Sequence[Any], patch: Sequence[Any], merge_key: str, meta: PatchMeta) -> list[Any]:
    merged = list(original)
    places: dict[object, int] = {}
    for place, item in enumerate(merged):
        if merge_key in item:
            places.setdefault(_token(item[merge_key]), place)
    for item in patch:
        token = _key_token(item, merge_key)
        found = places.get(token)
        if found is None:
            places[token] = len(merged)
            merged.append(item)
        else:
            merged[found] = _merge_map(merged[found], item, meta)
    return merged


def _partition(merged: Iterable[Any], by: Sequence[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """The items that `by` has too, and the rest, each in the order they were in."""
    # Upstream scans `by` for every item and stumbles over what is no map where it comes to it.
    stop = (
        next((at for at, item in enumerate(by) if not isinstance(item, dict)), len(by))
        if merge_key
        else len(by)
    )
    known = {_token(item.get(merge_key, _ABSENT) if merge_key else item) for item in by[:stop]}
    listed: list[Any] = []
    rest: list[Any] = []
    for item in merged:
        if _key_token(item, merge_key) in known:
            listed.append(item)
        elif stop < len(by):
            raise broken(f"value for key {stop} is not a map")
        else:
            rest.append(item)
    return listed, rest


# No JSON value, so it equals none.
_ABSENT: Final[list[Any]] = []


def _places(items: Sequence[Any], token: Callable[[Any], object]) -> dict[object, int]:
    places: dict[object, int] = {}
    for place, item in enumerate(items):
        places.setdefault(token(item), place)
    return places


def _in_order(
    listed: Sequence[Any],
    rest: Sequence[Any],
    order: Sequence[Any],
    live: Sequence[Any],
    merge_key: str,
    *,
    maps: bool,
) -> list[Any]:
    """`listed` by `order`, `rest` by their order in the live list, and the two interleaved.

    An item of the rest goes before a listed one only if the live list has it there: what the patch orders stays
    together otherwise (upstream: normalizeElementOrder, mergeSortedSlice).
    """
    token: Callable[[Any], object] = partial(_map_token, merge_key=merge_key) if maps else _token
    for item in listed:
        token(item)
    wanted = _places(order, token)
    for item in rest:
        token(item)
    living = _places(live, token)
    left, right = _sorted(rest, living, token), _sorted(listed, wanted, token)
    result: list[Any] = []
    i = j = 0
    while i < len(left) and j < len(right):
        mine, other = living.get(token(left[i])), living.get(token(right[j]))
        if mine is not None and other is not None and mine < other:
            result.append(left[i])
            i += 1
        else:
            result.append(right[j])
            j += 1
    return [*result, *left[i:], *right[j:]]


def _sorted(items: Sequence[Any], places: Mapping[object, int], token: Callable[[Any], object]) -> list[Any]:
    """By place; items that only delete go last."""
    deletions = [item for item in items if isinstance(item, dict) and item.get(_DIRECTIVE) == "delete"]
    kept = [item for item in items if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "delete")]
    ranks = [places.get(token(item), -1) for item in kept]
    if -1 in ranks:
        return [kept[at] for at in _upstream_order(ranks)] + deletions
    kept.sort(key=lambda item: places[token(item)])
    return kept + deletions


def _upstream_order(ranks: Sequence[int]) -> list[int]:
    """The order in which Go's stable sort leaves items of which some (-1) have no place.

    Upstream calls such an item less than any other, and any other less than it; what comes of that depends on the
    algorithm, for up to 20 items an insertion sort. More of them, with an empty order for items that are not empty,
    no client sends: those without a place go last then.
    """
    if len(ranks) > 20:
        return sorted(range(len(ranks)), key=lambda at: (ranks[at] < 0, ranks[at]))
    order: list[int] = []
    for at, rank in enumerate(ranks):
        place = len(order)
        while place and (rank < 0 or ranks[order[place - 1]] < 0 or rank < ranks[order[place - 1]]):
            place -= 1
        order.insert(place, at)
    return order
