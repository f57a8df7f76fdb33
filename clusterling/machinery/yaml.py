"""YAML bodies as upstream reads them: YAML 1.1 by Go's rules, into what JSON can hold.

PyYAML's C parser supplies the events; values are built here, because the differences matter: Go takes `y` and `n` for
booleans, `010` for eight and `1:30` for a string, keeps dates as text, names the line of a key given
twice, and refuses aliases that would blow up. Nesting and the number of values (aliases counted as often as they are used)
are bounded while the value is built, so hostile input costs no more than its length.

Upstream: sigs.k8s.io/yaml (YAMLToJSON), go.yaml.in/yaml/v2 (resolve.go, decode.go).
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from clusterling.machinery.errors import go_quote

DEPTH_MAX: Final = 200
VALUES_MAX: Final = 100_000  # at 3 µs each: the C parser hands out one Python event a value
# Of scalars, counted as often as they are used, beyond what the body has itself: written as JSON they stand there so often.
ALIASED_CHARACTERS_MAX: Final = 3 * 1024 * 1024
TAG_DIRECTIVES_MAX: Final = 1_000  # libyaml compares each with all before it.
JSON_BYTES_MAX: Final = 64 * 1024  # Cannot hold `VALUES_MAX` values.
KEY_CHARACTERS_MAX: Final = 1000  # A longer key is none to libyaml, which looks so far for its colon.

_MERGE: Final = object()
_BOOLS: Final = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_NOT_FINITE: Final = {
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT: Final = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)")
_TAG: Final = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """Not YAML that JSON can hold, in go-yaml's words (`yaml: line 3: …`)."""


@dataclass(slots=True)
class _Anchored:
    value: Any
    size: int = 1
    characters: int = 0
    levels: int = 0
    complete: bool = False


def parse_yaml(body: bytes) -> tuple[Any, list[str]]:
    """The first document, and upstream's complaint about keys given twice (one text for all, or none).

    No document is None. Raises YamlError.
    """
    found = _compact_json(body)
    if found is not None:
        return found, []
    builder = _Builder(body)
    value = builder.first_document()
    if builder.aliased:
        value = orjson.loads(orjson.dumps(value))  # one map in two places would change in both
    if not builder.duplicates:
        return value, []
    return value, ["yaml: unmarshal errors:\n  " + "\n  ".join(builder.duplicates)]


def _refuse_float(text: str) -> float:
    raise ValueError(f"{text}: not for this path")


_decoder: Final = msgspec.json.Decoder(float_hook=_refuse_float)


def _compact_json(body: bytes) -> Any:
    """The value of a body that is JSON as clients write it, and means the same as YAML; None for any other.

    Clients apply JSON, which takes a tenth of the time so. What encodes again to the bytes that came has no key twice, no
    spaces, no odd escapes and no fractions; what else the two read differently is looked for.
    """
    if body[:1] != b"{" or len(body) > JSON_BYTES_MAX or body.count(b"{") + body.count(b"[") > DEPTH_MAX:
        return None
    body = body.removesuffix(b"\n")
    try:
        value = _decoder.decode(body)
        same = orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER) == body
    except (ValueError, TypeError):
        return None
    return value if same and body.decode().isprintable() and not _has_long_key(value) else None


def _has_long_key(value: Any) -> bool:
    left = [value]
    while left:
        one = left.pop()
        items = one
        if type(one) is dict:
            items = one.values()
            if max(map(len, one), default=0) > KEY_CHARACTERS_MAX:
                return True
        left += [item for item in items if type(item) in (dict, list)]
    return False


def resolve(text: str) -> Any:
    """A plain scalar's value by go-yaml's rules (resolve.go): None, bool, int, float or str."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text in _NOT_FINITE:
        return _NOT_FINITE[text]
    if text == "<<":
        return _MERGE
    first = text[0]
    if not (first in "+-." or "0" <= first <= "9"):
        return text
    if first == ".":
        return float(text) if _FLOAT.fullmatch(text) else text
    return _resolve_number(text)


def _resolve_number(text: str) -> int | float | str:
    plain = text.replace("_", "")
    match = _INT.fullmatch(plain)
    if match is not None and len(plain) < 80:
        whole = _whole(match[1], match[2])
        if -(2**63) <= whole < 2**64:
            return whole
    if _FLOAT.fullmatch(plain):
        value = float(plain)
        if math.isfinite(value):
            return value
    return text


def _whole(sign: str, digits: str) -> int:
    prefix = digits[:2].lower()
    if prefix in ("0x", "0b", "0o"):
        whole = int(digits[2:] or "0", {"0x": 16, "0b": 2, "0o": 8}[prefix])
    else:
        whole = int(digits, 8 if digits.startswith("0") else 10)
    return -whole if sign == "-" else whole


class _Builder:
    def __init__(self, body: bytes) -> None:
        import yaml  # costs 20 ms, and bodies are rarely YAML

        self.yaml = yaml
        self.loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self.body = body
        self.anchors: dict[str, _Anchored] = {}
        self.duplicates: list[str] = []
        self.aliased = False
        self.values = 0
        self.characters = 0
        self.deepest = 0
        self.events: Iterator[Any] = iter(())

    def first_document(self) -> Any:
        yaml = self.yaml
        # In UTF-16 of either order the same three letters are three zeros apart.
        if max(self.body.count(b"%TAG"), self.body.count(b"%\0T\0A\0G")) > TAG_DIRECTIVES_MAX:
            raise YamlError(f"yaml: more than {TAG_DIRECTIVES_MAX} tag directives")
        self.events = yaml.parse(self.body, Loader=self.loader)
        try:
            for event in self.events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if event.version not in (None, (1, 1)):
                        raise YamlError("yaml: found incompatible YAML document")
                    value = self.value(next(self.events), 1)
                    next(self.events)
                    return None if value is _MERGE else value
        except yaml.MarkedYAMLError as error:
            raise YamlError(_message(error)) from error
        except yaml.reader.ReaderError as error:
            raise YamlError(f"yaml: {error.reason}") from error
        except UnicodeDecodeError as error:
            # libyaml unescapes a tag's bytes without asking whether they are UTF-8.
            raise YamlError("yaml: found an invalid escaped UTF-8 octet in a tag") from error
        return None

    def value(self, event: Any, depth: int) -> Any:
        yaml = self.yaml
        self.count(1)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
            characters = len(event.value)
            self.characters += characters
            if event.anchor:
                self.anchors[event.anchor] = _Anchored(value, 1, characters, complete=True)
            return value
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event.anchor, depth)
        values, characters, above = self.values, self.characters, self.deepest
        self.deepest = 0
        self.reach(depth)
        found: Any = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        anchored = _Anchored(found)
        if event.anchor:
            self.anchors[event.anchor] = anchored
        if isinstance(found, list):
            self.sequence(found, depth)
        else:
            self.mapping(found, depth)
        anchored.size = self.values - values + 1
        anchored.characters = self.characters - characters
        anchored.levels = self.deepest - depth + 1
        anchored.complete = True
        self.deepest = max(self.deepest, above)
        return found

    def reach(self, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise YamlError(f"yaml: nested deeper than {DEPTH_MAX} levels")
        self.deepest = max(self.deepest, depth)

    def count(self, values: int) -> None:
        self.values += values
        if self.values > VALUES_MAX:
            raise YamlError(
                "yaml: document contains excessive aliasing" if self.aliased else "yaml: too many values"
            )

    def alias(self, name: str, depth: int) -> Any:
        anchored = self.anchors.get(name)
        if anchored is None:
            raise YamlError(f"yaml: unknown anchor '{name}' referenced")
        if not anchored.complete:
            raise YamlError(f"yaml: anchor '{name}' value contains itself")
        if isinstance(anchored.value, dict | list):
            self.aliased = True
            self.reach(depth + anchored.levels - 1)
        self.count(anchored.size)
        self.characters += anchored.characters
        if self.characters > len(self.body) + ALIASED_CHARACTERS_MAX:
            raise YamlError("yaml: document contains excessive aliasing")
        return anchored.value

    def sequence(self, found: list[Any], depth: int) -> None:
        end = self.yaml.SequenceEndEvent
        for event in self.events:
            if isinstance(event, end):
                return
            found.append(_plain(self.value(event, depth + 1)))

    def mapping(self, found: dict[str, Any], depth: int) -> None:
        yaml = self.yaml
        seen: set[object] = set()
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                return
            key = self.value(event, depth + 1)
            following = next(self.events)
            line = following.start_mark.line + 1
            value = _plain(self.value(following, depth + 1))
            if key is _MERGE:
                self.merge(found, value)
                continue
            name = _key(key, value)
            if name in seen:
                shown = go_quote(key) if isinstance(key, str) else name
                self.duplicates.append(f"line {line}: key {shown} already set in map")
            seen.add(name)
            found[name] = value

    def merge(self, found: dict[str, Any], value: Any) -> None:
        maps = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in maps):
            raise YamlError("yaml: map merge requires map or sequence of maps as the value")
        self.aliased = True
        for one in reversed(maps):
            self.count(len(one))
            found.update(one)

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        tag = event.tag
        if event.implicit[0] or (tag == _TAG + "merge"):
            return resolve(text)
        if not tag or tag in ("!", _TAG + "str") or not tag.startswith(_TAG):
            return text
        return _tagged(tag.removeprefix(_TAG), text)


def _tagged(tag: str, text: str) -> Any:
    if tag == "binary":
        return _binary(text)
    value = resolve(text)
    matches = {
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "null": value is None,
    }.get(tag)
    if matches is None:
        return text
    if not matches:
        raise YamlError(f"yaml: cannot decode !!{_kind(value)} `{text}` as a !!{tag}")
    return float(value) if tag == "float" else value


def _binary(text: str) -> str:
    try:
        return base64.b64decode(text, validate=False).decode("utf-8", "replace")
    except ValueError as error:
        raise YamlError("yaml: !!binary value contains invalid base64 data") from error


def _kind(value: Any) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float"), (str, "str")):
        if isinstance(value, kind):
            return name
    return "null"


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: `<<` is a string where it is no key; integers beyond int64 are floats."""
    if value is _MERGE:
        return "<<"
    if type(value) is float:
        if not math.isfinite(value):
            name = "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
            raise YamlError(f"json: unsupported value: {name}")
        return int(value) if value.is_integer() and -(2**63) <= value < 2**63 else value
    if type(value) is int and value >= 2**63:
        return float(value)
    return value


def _key(key: Any, value: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(key)
    if isinstance(key, float):
        return _float_key(key)
    if isinstance(key, dict | list):
        raise YamlError(f"yaml: invalid map key: {_go_syntax(key)}")
    raise YamlError(f"unsupported map key of type: %!s(<nil>), key: <nil>, value: {_go_syntax(value)}")


def _go_syntax(value: Any) -> str:
    """A value as Go's %#v prints it."""
    match value:
        case None:
            return "interface {}(nil)"
        case bool():
            return "true" if value else "false"
        case str():
            return go_quote(value)
        case list():
            return f"[]interface {{}}{{{', '.join(map(_go_syntax, value))}}}"
        case dict():
            inner = ", ".join(f"{go_quote(key)}:{_go_syntax(one)}" for key, one in value.items())
            return f"map[interface {{}}]interface {{}}{{{inner}}}"
        case _:
            return str(value)


def _float_key(key: float) -> str:
    if math.isnan(key):
        return ".nan"
    if math.isinf(key):
        return ".inf" if key > 0 else "-.inf"
    return f"{key:.9g}" if key.is_integer() else repr(key)


def _message(error: Any) -> str:
    """PyYAML's error as go-yaml words it (decode.go, parser.fail); both come from libyaml."""
    mark = error.problem_mark or error.context_mark
    where = ""
    if mark is not None and mark.line:
        where = f"line {mark.line + (1 if type(error).__name__ == 'ScannerError' else 0)}: "
    return f"yaml: {where}{error.problem or 'unknown problem parsing YAML content'}"
