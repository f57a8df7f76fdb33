"""Bytes as values: any bytes are some JSON value, and any JSON value is some bytes, so that recordings can be seeds.

A mutation of JSON's text is nearly always no JSON. Here a byte says what comes (a map, a list, a word that Kubernetes uses,
a number), so that a mutation is another value, and code behind the decoder is reached.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final

DEPTH_MAX: Final = 24  # Of values made here; what is deeper is the attacks' part.

# At most 256 of them: a byte names one.
WORDS: Final[tuple[str, ...]] = (
    *("", "a", "b", "c", "name", "metadata", "spec", "status", "labels", "annotations", "namespace", "uid", "kind"),
    *("apiVersion", "v1", "ConfigMap", "Pod", "Deployment", "apps/v1", "Widget", "example.com/v1", "data", "x", "0"),
    *("items", "containers", "image", "env", "value", "ports", "containerPort", "protocol", "TCP", "UDP", "finalizers"),
    *("ownerReferences", "managedFields", "manager", "operation", "Apply", "Update", "time", "fieldsType", "FieldsV1"),
    *("fieldsV1", "subresource", "f:metadata", "f:spec", "f:a", "f:b", ".", 'k:{"name":"a"}', 'k:{"name":"b"}', 'v:"a"'),
    *("v:1", "i:0", "i:1", "f:", "k:{}", "v:null", "$patch", "delete", "replace", "merge", "$retainKeys", "volumes"),
    *("$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/ports", "$setElementOrder/a"),
    *("op", "path", "from", "add", "remove", "move", "copy", "test", "/a", "/a/0", "/a/-", "/a/b", "/", "~0", "~1", "/~01"),
    *("type", "object", "array", "string", "integer", "number", "boolean", "properties", "additionalProperties", "allOf"),
    *("anyOf", "oneOf", "not", "enum", "default", "nullable", "pattern", "format", "minimum", "maximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "required", "minProperties", "maxProperties"),
    *("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string", "date-time"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations", "rule"),
    *("map", "set", "atomic", "granular", "$ref", "description", "exclusiveMinimum", "exclusiveMaximum", "int32", "int64"),
    *("(a+)+$", "[", "a{1000}", "^[a-z]*$", ".*.*.*", r"\pN", "(?i)x", "In", "NotIn", "Exists", "key", "operator", "values"),
    *("matchLabels", "matchExpressions", "100m", "1Gi", "1e3", "-1", "1.5", "2024-01-01T00:00:00Z", "null", "true", "creationTimestamp"),
    *("group", "names", "plural", "singular", "listKind", "shortNames", "scope", "Namespaced", "versions", "served", "storage"),
    *("schema", "openAPIV3Schema", "subresources", "scale", "specReplicasPath", ".spec.replicas", "jsonPath", "conversion"),
    *("additionalPrinterColumns", "selectableFields", "strategy", "None", "template", "selector", "replicas", "rules", "verbs"),
    *("resources", "limits", "requests", "cpu", "memory", "generateName", "generation", "controller", "blockOwnerDeletion"),
    *("é", "\u2028", "😀", "\x00", "\x7f", "\ufeff", "a/b", "a=b", "a,b", "\\", '"', "\n", "~", "<<", "yes"),
)  # fmt: skip
_PLACE: Final = {word: at for at, word in enumerate(WORDS)}

_NULL, _TRUE, _FALSE, _WORD, _TEXT, _SMALL, _INT, _FLOAT, _LIST, _MAP, _EMPTY_LIST, _EMPTY_MAP = range(12)
_KINDS: Final = 12


class Source:
    """Bytes being read as whatever is asked for. When they end, all that comes is empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        found = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return found

    def below(self, limit: int) -> int:
        return self.byte() % limit

    def piece(self) -> bytes:
        """A length in two bytes, and so many bytes."""
        length = self.byte() | self.byte() << 8
        found = self._data[self._at : self._at + length]
        self._at += length
        return found

    def rest(self) -> bytes:
        found, self._at = self._data[self._at :], len(self._data)
        return found

    def text(self) -> str:
        """A word, or any text."""
        return self._text(self.byte())

    def _text(self, at: int) -> str:
        return WORDS[at] if at < len(WORDS) else self.piece().decode("utf-8", "replace")

    def value(self, depth: int = 0) -> Any:
        """A JSON value, such as decoding gives."""
        kind = self.byte() % _KINDS if not self.ended else _NULL
        match kind:
            case 1 | 2:
                return kind == _TRUE
            case 3:
                return WORDS[self.below(len(WORDS))]
            case 4:
                return self.piece().decode("utf-8", "replace")
            case 5:
                return self.byte() - 128
            case 6:
                return int(struct.unpack("<q", self._take(8))[0])
            case 7:
                return _json_number(struct.unpack("<d", self._take(8))[0])
            case 8 if depth < DEPTH_MAX:
                return [self.value(depth + 1) for _ in range(self.byte()) if not self.ended]
            case 9 if depth < DEPTH_MAX:
                return {self.text(): self.value(depth + 1) for _ in range(self.byte()) if not self.ended}
            case 8 | 10:
                return []
            case 9 | 11:
                return {}
        return None

    def object(self) -> dict[str, Any]:
        """A map."""
        found = self.value()
        return found if isinstance(found, dict) else {"a": found}

    def _take(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        self._at += length
        return found.ljust(length, b"\0")


def _json_number(number: float) -> int | float:
    """As a decoder gives it: whole numbers are integers, and there are no others than finite ones."""
    if not math.isfinite(number):
        return 0
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def sized(content: bytes) -> bytes:
    """What `Source.piece` reads."""
    cut = content[:0xFFFF]
    return struct.pack("<H", len(cut)) + cut


def text(value: str) -> bytes:
    """What `Source.text` reads."""
    at = _PLACE.get(value)
    return bytes([at]) if at is not None else b"\xff" + sized(value.encode())


def value(given: Any) -> bytes:
    """What `Source.value` reads; lists and maps are cut at 255, and what is too deep."""
    match given:
        case None:
            return bytes([_NULL])
        case bool():
            return bytes([_TRUE if given else _FALSE])
        case str():
            at = _PLACE.get(given)
            return bytes([_WORD, at]) if at is not None else bytes([_TEXT]) + sized(given.encode())
        case int() if -128 <= given < 128:
            return bytes([_SMALL, given + 128])
        case int():
            return bytes([_INT]) + struct.pack("<q", max(min(given, 2**63 - 1), -(2**63)))
        case float():
            return bytes([_FLOAT]) + struct.pack("<d", given)
        case list():
            return bytes([_LIST, len(given[:255])]) + b"".join(map(value, given[:255]))
        case dict():
            pairs = list(given.items())[:255]
            return bytes([_MAP, len(pairs)]) + b"".join(text(key) + value(item) for key, item in pairs)
    raise TypeError(f"no JSON: {given!r}")


assert len(WORDS) < 255, "0xff says that a text of its own follows"
