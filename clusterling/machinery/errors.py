"""Errors as a client sees them: `ApiError`, a `metav1.Status` waiting to be written.

    ApiError                        code, reason, message, details → Status document
    FieldError                      one wrong field; many make an `invalid(...)`

Texts, reasons and codes are those of upstream (`apimachinery/pkg/api/errors/errors.go`,
`apimachinery/pkg/util/validation/field/errors.go`), to the letter: clients and people grep them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from typing_extensions import override

from clusterling.machinery.gotext import go_float
from clusterling.machinery.meta import Object


class FieldErrorType(StrEnum):
    """Machine-readable `reason` of a cause (upstream: field.ErrorType)."""

    NOT_FOUND = "FieldValueNotFound"
    REQUIRED = "FieldValueRequired"
    DUPLICATE = "FieldValueDuplicate"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_SHORT = "FieldValueTooShort"
    TOO_MANY = "FieldValueTooMany"
    TOO_FEW = "FieldValueTooFew"
    TYPE_INVALID = "FieldValueTypeInvalid"
    INTERNAL = "InternalError"


_WORDS: Final[dict[FieldErrorType, str]] = {
    FieldErrorType.NOT_FOUND: "Not found",
    FieldErrorType.REQUIRED: "Required value",
    FieldErrorType.DUPLICATE: "Duplicate value",
    FieldErrorType.INVALID: "Invalid value",
    FieldErrorType.NOT_SUPPORTED: "Unsupported value",
    FieldErrorType.FORBIDDEN: "Forbidden",
    FieldErrorType.TOO_LONG: "Too long",
    FieldErrorType.TOO_SHORT: "Too short",
    FieldErrorType.TOO_MANY: "Too many",
    FieldErrorType.TOO_FEW: "Too few",
    FieldErrorType.TYPE_INVALID: "Invalid value",
    FieldErrorType.INTERNAL: "Internal error",
}

_WITHOUT_VALUE: Final = frozenset(
    {
        FieldErrorType.REQUIRED,
        FieldErrorType.FORBIDDEN,
        FieldErrorType.TOO_LONG,
        FieldErrorType.TOO_SHORT,
        FieldErrorType.INTERNAL,
    }
)


class _Omitted:
    """Stands for "the value is not part of the message" (None is a value: `null`)."""


OMITTED: Final = _Omitted()

# Of a wrong value, in the error that quotes it. Upstream quotes a megabyte several times over.
SHOWN_CHARACTERS_MAX: Final = 16_384


def go_quote(text: str) -> str:
    """The string as Go's %q prints it (the form in which upstream's messages carry values)."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_go_escaped, text))}"'


_GO_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
}


def _go_escaped(char: str) -> str:
    if char in _GO_ESCAPES:
        return _GO_ESCAPES[char]
    code = ord(char)
    if char.isprintable():
        return char
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _go_value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            if len(value) > SHOWN_CHARACTERS_MAX:
                return go_quote(value[:SHOWN_CHARACTERS_MAX] + "...")
            return go_quote(value)
        case float():
            return go_float(value)
        case _:
            ordered = not isinstance(value, GoStruct | GoList)
            text = json.dumps(
                value, ensure_ascii=False, separators=(",", ":"), sort_keys=ordered, default=str
            )
            if len(text) > SHOWN_CHARACTERS_MAX:
                text = text[:SHOWN_CHARACTERS_MAX] + "..."
            # encoding/json escapes these three; messages carry them so.
            return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# Of the errors of one object: behind so many no further one is told.
INVALID_CHARACTERS_MAX: Final = 1024 * 1024

# Of a field's path. A walk makes the path of each of a million items anew: below a key of a megabyte that would be hours.
PATH_CHARACTERS_MAX: Final = 2_048


def path_below(path: str, step: str) -> str:
    """The path of what is one step (`.name`, `[3]`) below, cut where it becomes too long to be told."""
    if len(path) + len(step) <= PATH_CHARACTERS_MAX:
        return path + step
    return path if path.endswith("...") else (path + step)[:PATH_CHARACTERS_MAX] + "..."


class GoStruct(dict[str, Any]):
    """A wrong value that is a struct in Go: told in the order of its fields, where a map is told in that of its keys."""


class GoList(list[Any]):
    """A wrong value that is a list of such structs."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong. `field` is upstream's path: `spec.ports[0].name`, `metadata.labels[a/b]`."""

    type: FieldErrorType
    field: str
    value: object = OMITTED
    detail: str = ""

    def body(self) -> str:
        """The message without the field's path."""
        text = _WORDS[self.type]
        if self.type not in _WITHOUT_VALUE and self.value is not OMITTED:
            text += f": {_go_value(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    @override
    def __str__(self) -> str:
        return f"{self.field}: {self.body()}"

    def cause(self) -> Object:
        """The error as a `metav1.StatusCause`."""
        return {"reason": str(self.type), "message": self.body(), "field": self.field}


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(FieldErrorType.REQUIRED, path, detail=detail)


def invalid_value(path: str, value: object, detail: str) -> FieldError:
    return FieldError(FieldErrorType.INVALID, path, value, detail)


def type_invalid(path: str, value: object, detail: str) -> FieldError:
    return FieldError(FieldErrorType.TYPE_INVALID, path, value, detail)


def not_supported(path: str, value: object, supported: Iterable[str]) -> FieldError:
    """`supported` keeps its order, as upstream's does: sort it where upstream sorts."""
    values = ", ".join(go_quote(one) for one in supported)
    return FieldError(
        FieldErrorType.NOT_SUPPORTED, path, value, f"supported values: {values}" if values else ""
    )


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError(FieldErrorType.FORBIDDEN, path, detail=detail)


def duplicate(path: str, value: object) -> FieldError:
    return FieldError(FieldErrorType.DUPLICATE, path, value)


def too_long(path: str, bytes_max: int) -> FieldError:
    unit = "byte" if bytes_max == 1 else "bytes"
    return FieldError(FieldErrorType.TOO_LONG, path, detail=f"may not be more than {bytes_max} {unit}")


def too_many(path: str, actual: int, items_max: int) -> FieldError:
    unit = "item" if items_max == 1 else "items"
    return FieldError(FieldErrorType.TOO_MANY, path, actual, f"must have at most {items_max} {unit}")


def immutable_field(path: str, value: object) -> FieldError:
    return invalid_value(path, value, "field is immutable")


@dataclass(slots=True)
class ApiError(Exception):
    """What the client gets instead of an object. `details` is a `metav1.StatusDetails`, or None.

    `headers` go with the answer (Retry-After); `metadata` is the Status' ListMeta (`continue` of an expired list).
    """

    code: int
    reason: str
    message: str
    details: Object | None = None
    headers: dict[str, str] = field(default_factory=dict)
    metadata: Object = field(default_factory=dict)

    @override
    def __str__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}"

    def status(self) -> Object:
        """The `metav1.Status` document, in upstream's field order."""
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if not self.reason:
            del status["reason"]
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def qualified(resource: str, group: str) -> str:
    """`widgets.example.com`, or `configmaps` for the core group (upstream: GroupResource.String)."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, group: str, kind: str, **more: Any) -> Object:
    details = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in details.items() if value}


def not_found(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        404,
        "NotFound",
        f"{qualified(resource, group)} {go_quote(name)} not found",
        _details(name, group, resource),
    )


def no_such_resource() -> ApiError:
    """The path names no resource that is served (clients say: "the server could not find the requested resource")."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f"{qualified(resource, group)} {go_quote(name)} already exists",
        _details(name, group, resource),
    )


def generate_name_conflict(resource: str, group: str, name: str) -> ApiError:
    return ApiError(
        409,
        "AlreadyExists",
        f"{qualified(resource, group)} {go_quote(name)} already exists, the server was not able to generate a unique name for the object",
        _details(name, group, resource, retryAfterSeconds=1),
        {"Retry-After": "1"},
    )


MODIFIED: Final = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


def conflict(resource: str, group: str, name: str, why: str = MODIFIED) -> ApiError:
    return ApiError(
        409,
        "Conflict",
        f"Operation cannot be fulfilled on {qualified(resource, group)} {go_quote(name)}: {why}",
        _details(name, group, resource),
    )


def forbidden(resource: str, group: str, name: str, why: str) -> ApiError:
    if not resource and not group:
        message = f"forbidden: {why}"
    elif not name:
        message = f"{qualified(resource, group)} is forbidden: {why}"
    else:
        message = f"{qualified(resource, group)} {go_quote(name)} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, _details(name, group, resource))


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422 with a cause for each error, and upstream's aggregate message (duplicates said once)."""
    told = _told(errors)
    texts = list(dict.fromkeys(map(str, told)))
    message = f"{qualified(kind, group)} {go_quote(name)} is invalid"
    if len(texts) == 1:
        message += f": {texts[0]}"
    elif texts:
        message += f": [{', '.join(texts)}]"
    causes = [error.cause() for error in told]
    return ApiError(422, "Invalid", message, _details(name, group, kind, causes=causes))


def _told(errors: Sequence[FieldError]) -> list[FieldError]:
    """The errors, as far as they fit: thousands of them may each quote kilobytes."""
    characters, told = 0, []
    for error in errors:
        told.append(error)
        characters += len(str(error))
        if characters > INVALID_CHARACTERS_MAX:
            break
    return told


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> ApiError:
    return ApiError(401, "Unauthorized", message)


def method_not_supported(resource: str, group: str, action: str) -> ApiError:
    return ApiError(
        405,
        "MethodNotAllowed",
        f"{action} is not supported on resources of kind {go_quote(qualified(resource, group))}",
        _details("", group, resource),
    )


def not_acceptable(supported: Sequence[str]) -> ApiError:
    return ApiError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(supported)}",
    )


def unsupported_patch_type(supported: Sequence[str]) -> ApiError:
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(supported)}",
    )


def expired(message: str) -> ApiError:
    """410 `Expired`: the revision is compacted. Clients list again (never `Gone`: they tell the two apart)."""
    return ApiError(410, "Expired", message)


def too_large(message: str) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def too_many_requests(message: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(
        429,
        "TooManyRequests",
        message,
        {"retryAfterSeconds": retry_after_s},
        {"Retry-After": str(retry_after_s)},
    )


def internal_error(message: str) -> ApiError:
    return ApiError(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        {"causes": [{"message": message}]},
    )


def service_unavailable(message: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(
        503,
        "ServiceUnavailable",
        message,
        {"retryAfterSeconds": retry_after_s},
        {"Retry-After": str(retry_after_s)},
    )


def timeout(message: str, retry_after_s: int = 1) -> ApiError:
    return ApiError(
        504,
        "Timeout",
        f"Timeout: {message}",
        {"retryAfterSeconds": retry_after_s},
        {"Retry-After": str(retry_after_s)},
    )


def resource_version_too_large(asked: int, current: int) -> ApiError:
    """504 with the cause `ResourceVersionTooLarge`, which reflectors look for (apiserver: storage/errors.go)."""
    text = f"Too large resource version: {asked}, current: {current}"
    error = timeout(text)
    assert error.details is not None
    error.details["causes"] = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return error
