"""JSON numbers as Go sees them: int64 where they fit, float64 otherwise.

Upstream: apimachinery `util/json`, go-openapi/swag `conv.IsFloat64AJSONInteger`.
"""

from __future__ import annotations

import math
import sys
from typing import Final

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
_JSON_FLOAT_MAX: Final = float(2**53 - 1)
_EPSILON: Final = 1e-9


def is_int64(value: object) -> bool:
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def as_float(value: object) -> float:
    """A number as float64; the largest where it is beyond, since JSON has no infinity."""
    assert isinstance(value, int | float), "callers have checked that it is a number"
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


def is_json_integer(value: float) -> bool:
    """A float that counts as an integer: whole, or as good as whole, and within 53 bits."""
    if not math.isfinite(value) or abs(value) > _JSON_FLOAT_MAX:
        return False
    rounded = math.floor(abs(value) + 0.5)
    if abs(value) == rounded:
        return True
    return rounded != 0 and abs(abs(value) - rounded) < _EPSILON * rounded
