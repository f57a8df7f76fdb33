"""JSON numbers as Go sees them: int64 where they fit, float64 otherwise; and how Go writes floats.

Upstream: apimachinery `util/json`, go-openapi/swag `conv.IsFloat64AJSONInteger`, Go's `%v`.
"""

from __future__ import annotations

import math
from typing import Final

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_JSON_FLOAT_MAX: Final = float(2**53 - 1)
_EPSILON: Final = 1e-9


def is_int64(value: object) -> bool:
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def as_float(value: object) -> float:
    """A number as float64; infinite where it is beyond."""
    assert isinstance(value, int | float), "callers have checked that it is a number"
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def is_json_integer(value: float) -> bool:
    """A float that counts as an integer: whole, or as good as whole, and within 53 bits."""
    if not math.isfinite(value) or abs(value) > _JSON_FLOAT_MAX:
        return False
    rounded = math.floor(abs(value) + 0.5)
    if abs(value) == rounded:
        return True
    return rounded != 0 and abs(abs(value) - rounded) < _EPSILON * rounded


def go_float(value: float) -> str:
    """`%v` of a float64: the shortest digits, with an exponent below 1e-4 and from 1e6 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign, digits, power = _shortest(value)
    if not -4 <= power < 6:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    digits = digits.ljust(power + 1, "0")
    rest = digits[power + 1 :]
    return f"{sign}{digits[: power + 1]}{'.' + rest if rest else ''}"


def _shortest(value: float) -> tuple[str, str, int]:
    """(sign, shortest significant digits, decimal exponent of the first)."""
    text = repr(abs(value))
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign, "0", 0
    leading = len(whole + fraction) - len(digits)
    power = int(exponent or 0) + len(whole) - 1 - leading
    return sign, digits.rstrip("0") or "0", power
