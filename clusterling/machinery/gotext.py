"""Values as Go prints them: upstream's messages and printer columns carry them, and people grep those."""

from __future__ import annotations

import json
from decimal import Decimal


def go_float(value: float) -> str:
    """A float64 as %v prints it: the shortest digits, with an exponent below 1e-4 and from 1e6."""
    if value == 0:
        return "0"
    sign, numerals, power = Decimal(repr(value)).as_tuple()
    assert isinstance(power, int), "JSON has no infinities"
    exponent = len(numerals) + power - 1
    digits = "".join(map(str, numerals)).rstrip("0")
    minus = "-" if sign else ""
    if exponent < -4 or exponent >= 6:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{minus}{digits[0]}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    return minus + f"{abs(value):.{max(len(digits) - 1 - exponent, 0)}f}"


def go_text(value: object) -> str:
    """A JSON value as %v prints it: `map[a:1 b:[x y]]`."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return go_float(value)
        case dict():
            return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(go_text, value))}]"
        case _:
            return str(value)


def go_string(value: object) -> str:
    """A JSON value as %s prints it, which is meant for text: `%!s(int64=1)`."""
    match value:
        case str():
            return value
        case None:
            return "%!s(<nil>)"
        case dict():
            return f"map[{' '.join(f'{key}:{go_string(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(go_string, value))}]"
        case _:
            return f"%!s({go_type(value)}={go_text(value)})"


def go_type(value: object) -> str:
    """The type that a JSON value decodes into, as %s prints it."""
    match value:
        case None:
            return "%!s(<nil>)"
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "int64"
        case float():
            return "float64"
        case dict():
            return "map[string]interface {}"
        case _:
            return "[]interface {}"


def json_type(value: object) -> str:
    """What Go's decoder calls a JSON value that it cannot use."""
    match value:
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "number"


def go_json(value: object, *, sort_keys: bool = True) -> str:
    """A value as Go's encoder writes it: keys of maps sorted, whole floats without a fraction, `<`, `>`, `&` escaped."""
    text = json.dumps(_whole(value), ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _whole(value: object) -> object:
    match value:
        case dict():
            return {key: _whole(item) for key, item in value.items()}
        case list():
            return [_whole(item) for item in value]
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
        case _:
            return value
