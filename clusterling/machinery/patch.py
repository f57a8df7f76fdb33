"""JSON Patch and JSON merge patch: a document and a patch make a new document. What Kubernetes added is in strategic.py.

    json_patch(doc, operations)              RFC 6902, as evanphx/json-patch v4 understands it
    merge_patch(doc, patch)                  RFC 7386, likewise

Theory of operation. All patches are pure: neither argument is changed. The result shares containers with the document
(a change of one field must not copy a megabyte) but none with the patch, which may be applied again on a conflict.
JSON Patch copies a container of the document when it first changes something in it; the merges rebuild what they pass.

Behaviour, texts and codes are those of `apiserver/pkg/endpoints/handlers/patch.go`.

Rules of both files: a patch is hostile. Its depth is checked before anything recurses into it; work is linear in the
sizes of patch and document (lists are looked up by key, not scanned); what a JSON Patch copies or shifts is counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from clusterling.machinery.errors import ApiError, bad_request, go_quote, invalid, invalid_value, too_large
from clusterling.machinery.gotext import json_type
from clusterling.machinery.meta import Object

OPERATIONS_MAX: Final = 10_000
COPIED_BYTES_MAX: Final = 3 * 1024 * 1024
SHIFTED_ITEMS_MAX: Final = 50_000_000
# Levels of maps and lists. orjson writes 254; watch events, lists and audit records wrap an object in a few more.
NESTING_MAX: Final = 200
_MESSAGE_CHARACTERS_MAX: Final = 2_000


# --------------------------------------------------------------------------- what all patches share


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


def check_nesting(patch: object) -> None:
    if nesting(patch, NESTING_MAX) > NESTING_MAX:
        raise bad_request(f"the patch is nested deeper than {NESTING_MAX} levels")


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def broken(text: str) -> ApiError:
    """What upstream answers to an error it did not foresee: 500 without a reason."""
    return ApiError(500, "", text[:_MESSAGE_CHARACTERS_MAX])


def rejected() -> ApiError:
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
        self._insert(container, key, copied(operation.get("value")))

    def remove(self, operation: Mapping[str, Any]) -> None:
        container, key = self._at(operation, "path", write=True)
        self._delete(container, key)

    def replace(self, operation: Mapping[str, Any]) -> None:
        value = copied(operation.get("value"))
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
        self._insert(container, key, copied(value))

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
    check_nesting(operations)
    document = _Document(doc)
    try:
        for operation in checked:
            document.apply(operation)
        if nesting(document.root, NESTING_MAX) > NESTING_MAX:
            raise _NotApplicable(f"the patched document is nested deeper than {NESTING_MAX} levels")
    except _NotApplicable as error:
        raise rejected() from error
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
    check_nesting(patch)
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
            result[key] = copied(value)
    return result


def _without_nulls(value: Any) -> Any:
    """A copy whose maps, at any depth, have no null values. Null items of lists stay."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
