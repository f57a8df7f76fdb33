"""JSON Patch, JSON merge patch and strategic merge patch: a document and a patch make a new document.

    json_patch(doc, operations)              RFC 6902, as evanphx/json-patch v4 understands it
    merge_patch(doc, patch)                  RFC 7386, likewise
    strategic_merge(doc, patch, schema)      Kubernetes' own: lists merge by key, directives begin with `$`

Theory of operation. All three are pure: neither argument is changed. The result shares containers with the document
(a change of one field must not copy a megabyte) but none with the patch, which may be applied again on a conflict.
JSON Patch copies a container of the document when it first changes something in it; the merges rebuild what they pass.

What a strategic merge does with a field is in the kind's OpenAPI schema (`x-kubernetes-patch-strategy`,
`x-kubernetes-patch-merge-key`), read through `PatchMeta`. Behaviour, texts and codes are those of
`apimachinery/pkg/util/strategicpatch`, `apimachinery/pkg/util/mergepatch` and
`apiserver/pkg/endpoints/handlers/patch.go`; where upstream depends on the order of a Go map, ours is the patch's.

Rules of this file: a patch is hostile. Its depth is checked before anything recurses into it; work is linear in the
sizes of patch and document (lists are looked up by key, not scanned); what a JSON Patch copies or shifts is counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import orjson

from clusterling.machinery.errors import ApiError, bad_request, go_quote, invalid, invalid_value, too_large
from clusterling.machinery.gotext import go_string, go_text, go_type, json_type
from clusterling.machinery.meta import Object

OPERATIONS_MAX: Final = 10_000
COPIED_BYTES_MAX: Final = 3 * 1024 * 1024
SHIFTED_ITEMS_MAX: Final = 50_000_000
# Levels of maps and lists. orjson writes 254; watch events, lists and audit records wrap an object in a few more.
NESTING_MAX: Final = 200
_MESSAGE_CHARACTERS_MAX: Final = 2_000

_DIRECTIVE: Final = "$patch"
_RETAIN_KEYS: Final = "$retainKeys"
_DELETE_ITEMS: Final = "$deleteFromPrimitiveList"
_ELEMENT_ORDER: Final = "$setElementOrder"


# --------------------------------------------------------------------------- what the three share


def nesting(value: object, limit: int) -> int:
    """Levels of maps and lists in a value, 0 for a scalar; stops counting above `limit`."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    depth = 0
    while level and depth <= limit:
        depth += 1
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in _CONTAINERS
        ]
    return depth


_CONTAINERS: Final = frozenset({dict, list})


def _check_nesting(patch: object) -> None:
    if nesting(patch, NESTING_MAX) > NESTING_MAX:
        raise bad_request(f"the patch is nested deeper than {NESTING_MAX} levels")


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _broken(text: str) -> ApiError:
    """What upstream answers to an error it did not foresee: 500 without a reason."""
    return ApiError(500, "", text[:_MESSAGE_CHARACTERS_MAX])


def _rejected() -> ApiError:
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


# --------------------------------------------------------------------------- JSON Patch


class _NotApplicable(ValueError):
    """An operation cannot be applied. Upstream tells its text to nobody; here it is the cause, for whoever looks."""


_INDEX: Final = re.compile(r"[+-]?[0-9]{1,9}").fullmatch
_FIELDS: Final = ("op", "path", "from", "value")

Container = dict[str, Any] | list[Any]


class _Document:
    """A document being changed. `_own` holds the containers made here, which may be changed in place."""

    def __init__(self, root: Container) -> None:
        self.root = root
        # By identity; the values keep the containers alive, so that no identity is given out twice.
        self._own: dict[int, Container] = {}
        self._copied_bytes = 0
        self._shifted_items = 0

    def apply(self, operation: Mapping[str, Any]) -> None:
        kind = operation.get("op")
        function = _OPERATIONS.get(kind) if isinstance(kind, str) else None
        if function is None:
            raise _NotApplicable(f"Unexpected kind: {kind}")
        function(self, operation)

    def sort(self) -> None:
        """Puts what was changed in the order in which upstream writes it, which is that in which it is read again."""
        for container in self._own.values():
            if isinstance(container, dict):
                items = sorted(container.items())
                container.clear()
                container.update(items)

    def _owned(self, container: Container) -> Container:
        if id(container) in self._own:
            return container
        mine: Container = dict(container) if isinstance(container, dict) else list(container)
        self._own[id(mine)] = mine
        return mine

    def _find(self, path: str, *, write: bool) -> tuple[Container | None, str]:
        """The container that a path's last part is in, and that part. None where there is no such container.

        What stands before the first slash is not looked at: upstream takes `x/a` for `/a`.
        """
        parts = path.split("/")
        if len(parts) < 2:
            return None, ""
        if write:
            self.root = self._owned(self.root)
        container = self.root
        for part in parts[1:-1]:
            key = _unescaped(part)
            try:
                child = _get(container, key)
            except _NotApplicable:
                return None, ""
            if not isinstance(child, dict | list):
                return None, ""
            if write:
                child = self._owned(child)
                if isinstance(container, dict):
                    container[key] = child
                else:
                    container[_position(key, len(container))] = child
            container = child
        return container, _unescaped(parts[-1])

    def _insert(self, container: Container, key: str, value: object) -> None:
        if isinstance(container, dict):
            container[key] = value
        elif key == "-":
            container.append(value)
        else:
            index = _position(key, len(container) + 1)
            self._shift(len(container) - index)
            container.insert(index, value)

    def _delete(self, container: Container, key: str) -> None:
        if isinstance(container, list):
            index = _position(key, len(container))
            self._shift(len(container) - index)
            del container[index]
        elif key in container:
            del container[key]
        else:
            raise _NotApplicable(f"Unable to remove nonexistent key: {key}: missing value")

    def _shift(self, items: int) -> None:
        self._shifted_items += items
        if self._shifted_items > SHIFTED_ITEMS_MAX:
            raise too_large("the operations of the JSON patch move too many items of lists")

    def _at(self, operation: Mapping[str, Any], field: str, *, write: bool) -> tuple[Container, str]:
        """The container and the key in it that the operation's `path` or `from` names."""
        pointer = operation.get(field)
        if not isinstance(pointer, str):
            raise _NotApplicable(f"the operation has no {field}")
        container, key = self._find(pointer, write=write)
        if container is None:
            raise _NotApplicable(f"the operation does not apply: doc is missing {field}: {pointer}")
        return container, key

    def add(self, operation: Mapping[str, Any]) -> None:
        container, key = self._at(operation, "path", write=True)
        self._insert(container, key, _copied(operation.get("value")))

    def remove(self, operation: Mapping[str, Any]) -> None:
        container, key = self._at(operation, "path", write=True)
        self._delete(container, key)

    def replace(self, operation: Mapping[str, Any]) -> None:
        value = _copied(operation.get("value"))
        if operation.get("path") == "":
            if not isinstance(value, dict | list):
                raise _NotApplicable("replace operation value must be object or array")
            self.root = value
            return
        container, key = self._at(operation, "path", write=True)
        if isinstance(container, dict):
            # A key that is not there is not missed: v4 of the library sets it.
            container[key] = value
        else:
            container[_position(key, len(container))] = value

    def move(self, operation: Mapping[str, Any]) -> None:
        container, key = self._at(operation, "from", write=True)
        value = _get(container, key)
        self._delete(container, key)
        container, key = self._at(operation, "path", write=True)
        self._insert(container, key, value)

    def copy(self, operation: Mapping[str, Any]) -> None:
        value = _get(*self._at(operation, "from", write=False))
        container, key = self._at(operation, "path", write=True)
        self._copied_bytes += _json_bytes(value)
        if self._copied_bytes > COPIED_BYTES_MAX:
            raise _NotApplicable(
                "Unable to complete the copy, the accumulated size increase of copy is "
                f"{self._copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}"
            )
        self._insert(container, key, _copied(value))

    def test(self, operation: Mapping[str, Any]) -> None:
        root = operation.get("path") == ""
        found = self.root if root else _get(*self._at(operation, "path", write=False))
        if not _equal(found, operation.get("value")):
            raise _NotApplicable(f"testing value {operation.get('path')} failed: test failed")


_OPERATIONS: Final[dict[str, Callable[[_Document, Mapping[str, Any]], None]]] = {
    "add": _Document.add,
    "remove": _Document.remove,
    "replace": _Document.replace,
    "move": _Document.move,
    "copy": _Document.copy,
    "test": _Document.test,
}


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~") if "~" in part else part


def _position(key: str, length: int) -> int:
    """An index in a list of that length; negative ones count from its end, as upstream lets them."""
    if not _INDEX(key):
        raise _NotApplicable(f"value was not a proper array index: '{key}'")
    index = int(key)
    if not -length <= index < length:
        raise _NotApplicable(f"Unable to access invalid index: {index}: invalid index referenced")
    return index + length if index < 0 else index


def _get(container: Container, key: str) -> object:
    """The value there. None where a map has no such key, which upstream does not tell from null."""
    if isinstance(container, dict):
        return container.get(key)
    return container[_position(key, len(container))]


def _json_bytes(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise _NotApplicable("the value is nested too deeply") from error


def _equal(left: object, right: object) -> bool:
    """Equal as JSON texts: 1, 1.0 and true are three values."""
    try:
        if left != right:
            return False
        sort = orjson.OPT_SORT_KEYS
        return orjson.dumps(left, option=sort) == orjson.dumps(right, option=sort)
    except (TypeError, RecursionError):
        raise _NotApplicable("the value to test is nested too deeply") from None


def _checked_operations(operations: object, *, typed: bool) -> list[Mapping[str, Any]]:
    """The operations, if they decode into upstream's type. Raises ApiError 400 and 413."""
    if operations is None:
        return []
    if not isinstance(operations, list):
        raise _no_operations(
            operations, "[]handlers.jsonPatchOp" if typed else "jsonpatch.Patch", typed=typed
        )
    for operation in operations:
        if operation is None:
            continue
        if not isinstance(operation, dict):
            raise _no_operations(
                operation, "handlers.jsonPatchOp" if typed else "jsonpatch.Operation", typed=typed
            )
        for field in ("op", "path", "from") if typed else ():
            value = operation.get(field)
            if value is not None and not isinstance(value, str):
                raise bad_request(
                    f"error decoding patch: json: cannot unmarshal {json_type(value)} "
                    f"into Go struct field jsonPatchOp.{field} of type string"
                )
    if len(operations) > OPERATIONS_MAX:
        raise too_large(
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    return [operation or {} for operation in operations]


def _no_operations(given: object, wanted: str, *, typed: bool) -> ApiError:
    why = f"json: cannot unmarshal {json_type(given)} into Go value of type {wanted}"
    return bad_request(f"error decoding patch: {why}" if typed else why)


def json_patch(doc: Object, operations: object, *, typed: bool = True) -> Object:
    """Applies RFC 6902 operations, in order, all or none. `typed`: their own fields must be of their types.

    Raises ApiError: 400 for what is no list of operations, 413 for too many or too much work, 422 for one that does
    not apply (a failed `test`, a missing path); upstream gives no details of that, they are in the error's cause.
    """
    checked = _checked_operations(operations, typed=typed)
    _check_nesting(operations)
    document = _Document(doc)
    try:
        for operation in checked:
            document.apply(operation)
        if nesting(document.root, NESTING_MAX) > NESTING_MAX:
            raise _NotApplicable(f"the patched document is nested deeper than {NESTING_MAX} levels")
    except _NotApplicable as error:
        raise _rejected() from error
    if isinstance(document.root, list):
        raise _no_object(document.root)
    document.sort()
    return document.root


def _no_object(made: list[Any]) -> ApiError:
    return undecodable(
        made,
        "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct "
        '{ APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }',
    )


def json_patch_unknown_fields(operations: object) -> list[str]:
    """What strict decoding says of fields that an operation does not have: `unknown field "[0].foo"`."""
    return [
        f"unknown field {go_quote(f'[{index}].{field}')}"
        for index, operation in enumerate(operations if isinstance(operations, list) else ())
        if isinstance(operation, dict)
        for field in operation
        if field not in _FIELDS
    ]


def undecodable(patched: object, why: str) -> ApiError:
    """422 for a JSON or merge patch whose result is not an object of the kind; `why` in the words of Go's decoder."""
    return invalid("", "", "", [invalid_value("patch", text_of(patched), why)])


def text_of(patched: object) -> str:
    """A patched document as messages show it."""
    return orjson.dumps(patched, option=orjson.OPT_SORT_KEYS).decode()


# --------------------------------------------------------------------------- JSON merge patch


def merge_patch(doc: Object, patch: object, *, typed: bool = True) -> Object:
    """Applies a JSON merge patch: maps merge, null deletes, all else replaces. Raises ApiError 400.

    `typed`: it must be a map; else a list may take the place of the document, which is 422.
    """
    if patch is None or not (typed or isinstance(patch, dict | list)):
        raise bad_request("Invalid JSON Patch")
    if isinstance(patch, list) and not typed:
        raise _no_object(_without_nulls(patch))
    if not isinstance(patch, dict):
        kind = json_type(patch)
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )
    _check_nesting(patch)
    return _merged(doc, patch)


def _merged(doc: Object, patch: Object) -> Object:
    result = dict(doc)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
            continue
        current = result.get(key)
        if not isinstance(current, dict):
            result[key] = _without_nulls(value)
        elif isinstance(value, dict):
            result[key] = _merged(current, value)
        else:
            # In place of a map the library takes a list as it is, nulls within its items included.
            result[key] = _copied(value)
    return result


def _without_nulls(value: Any) -> Any:
    """A copy whose maps, at any depth, have no null values. Null items of lists stay."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


# --------------------------------------------------------------------------- strategic merge patch


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
    _check_nesting(patch)
    left: Object = _copied(patch)
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
            raise _broken(f"unknown patch type: {go_string(directive)} in map: {go_text(patch)}")


def _field(meta: PatchMeta, name: str) -> PatchField:
    try:
        return meta.field(name)
    except LookupError as error:
        raise _broken(str(error.args[0])) from error


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
    return _broken(f"map: {go_text(item)} does not contain declared merge key: {merge_key}")


def _bad_type(expected: object, actual: object) -> ApiError:
    return _broken(f"expected a {go_type(expected)}, but received a {go_type(actual)}")


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
        raise _broken(
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
                    raise _rejected()
            elif type(item) is not found:
                raise _broken(f"list element types are not identical: {go_text(list(map(list, lists)))}")
    if found is None:
        raise _broken("no elements in any of the given slices")
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
            raise _broken("cannot merge lists without merge key for struct")
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
                raise _broken("merging lists cannot yet be specified in the patch")
            case directive:
                raise _broken(f"unknown patch type: {go_string(directive)} in map: {go_text(item)}")
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
            raise _broken(f"value for key {stop} is not a map")
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
