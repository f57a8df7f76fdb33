"""Quantities: `100m`, `1.5Gi`, `12e6`. Exact decimal numbers that remember how they were written.

A quantity is `unscaled × 10^exponent` with integers of any size, so nothing is ever a float. Parsing, rounding (up, to
nano), the cap of binary quantities (2^63-1) and the canonical text are upstream's
(`apimachinery/pkg/api/resource/quantity.go`), with one bound of our own: upstream takes `1e2000000000`, and comparing
that with anything is a denial of service.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import total_ordering
from typing import Final, Self

from typing_extensions import override

CHARACTERS_MAX: Final = 256
EXPONENT_MAX: Final = 256

FORMAT_WRONG: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_NUMERIC: Final = "unable to parse numeric part of quantity"
_SUFFIX: Final = "unable to parse quantity's suffix"

# Looser than the message says: upstream takes no digits at all for a zero.
_parts = re.compile(r"([+-]?)(0*)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)").fullmatch
_exponent = re.compile(r"[eE]([-+]?[0-9]+)").fullmatch

_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX: Final = {exponent: suffix for suffix, exponent in _BINARY.items()}
_NANO: Final = -9
_INT64_MAX: Final = (1 << 63) - 1


class Format(Enum):
    """How a quantity was written, and so is written again."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """A number and the form it is written in. Equality and order are those of the number: 1 is 1000m."""

    unscaled: int
    exponent: int = 0
    format: Format = Format.DECIMAL_SI
    # The text it was parsed from, where upstream keeps that as the canonical one without looking further.
    text: str = field(default="", repr=False)

    @classmethod
    def parse(cls, value: str | int | float) -> Self:
        """A quantity from its JSON value. Raises ValueError with upstream's text."""
        given = value if isinstance(value, str) else repr(value)
        found = _parts(given) if 0 < len(given) <= CHARACTERS_MAX else None
        if found is None:
            raise ValueError(FORMAT_WRONG)
        sign, zeros, whole, fraction, suffix = found.groups("")
        written, exponent = _interpret(suffix)
        if not (zeros or whole or fraction):
            # No digit at all. Upstream's short way (small numbers) takes it for 0, its long way does not.
            if suffix in {"Pi", "Ei"} or (written is not Format.BINARY_SI and exponent < _NANO):
                raise ValueError(_NUMERIC)
            return cls(0, 0, written)
        number = int((whole + fraction) or "0") * (-1 if sign == "-" else 1)
        if written is Format.BINARY_SI:
            return cls._binary(number << exponent, -len(fraction), _kept(given, whole, fraction, exponent))
        scale = exponent - len(fraction)
        text = given if _is_plain(whole, fraction, scale) else ""
        return cls(*_rounded(number, scale), written, text)

    @classmethod
    def _binary(cls, number: int, scale: int, text: str) -> Self:
        number, scale = _rounded(number, scale)
        power = 10**-scale
        if abs(number) > _INT64_MAX * power:
            return cls(_INT64_MAX if number > 0 else -_INT64_MAX, 0, Format.BINARY_SI)
        # Less than one has no binary form.
        written = Format.DECIMAL_SI if 0 < abs(number) < power else Format.BINARY_SI
        return cls(number, scale, written, text)

    @property
    def canonical(self) -> str:
        """The text a server writes: no fraction, the largest suffix that loses nothing.

        From 10^21 upstream writes a wrong number (`1000E` becomes `1`); here it gets an exponent.
        """
        if self.text:
            return self.text
        if not self.unscaled:
            return "0"
        if self.format is Format.BINARY_SI and (whole := self._whole()) is not None and abs(whole) >= 1024:
            exponent = 0
            while exponent < 60 and whole % 1024 == 0:
                whole //= 1024
                exponent += 10
            return f"{whole}{_BINARY_SUFFIX.get(exponent, '')}"
        number, exponent = self.unscaled, self.exponent
        while number % 10 == 0:
            number //= 10
            exponent += 1
        number *= 10 ** (exponent % 3)
        exponent -= exponent % 3
        if self.format is not Format.DECIMAL_EXPONENT and exponent in _DECIMAL_SUFFIX:
            return f"{number}{_DECIMAL_SUFFIX[exponent]}"
        return f"{number}e{exponent}" if exponent else str(number)

    def _whole(self) -> int | None:
        """The number as an integer, None where it has a fraction."""
        if self.exponent >= 0:
            return int(self.unscaled * 10**self.exponent)
        whole, rest = divmod(self.unscaled, 10**-self.exponent)
        return None if rest else int(whole)

    def rounded_up(self) -> int:
        """The number as an integer, away from zero (upstream: Value)."""
        if self.exponent >= 0:
            return int(self.unscaled * 10**self.exponent)
        size = -(-abs(self.unscaled) // 10**-self.exponent)
        return int(size) if self.unscaled >= 0 else -int(size)

    def _at(self, exponent: int) -> int:
        return int(self.unscaled * 10 ** (self.exponent - exponent))

    def __add__(self, other: Quantity) -> Quantity:
        """The sum, written as this one is (as the other where this is zero)."""
        exponent = min(self.exponent, other.exponent)
        written = self.format if self.unscaled else other.format
        return Quantity(self._at(exponent) + other._at(exponent), exponent, written)

    def __neg__(self) -> Quantity:
        return Quantity(-self.unscaled, self.exponent, self.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return self + -other

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Quantity):
            return NotImplemented
        exponent = min(self.exponent, other.exponent)
        return self._at(exponent) == other._at(exponent)

    def __lt__(self, other: Quantity) -> bool:
        exponent = min(self.exponent, other.exponent)
        return self._at(exponent) < other._at(exponent)

    @override
    def __hash__(self) -> int:
        return hash(self._at(min(self.exponent, _NANO)))

    @override
    def __str__(self) -> str:
        return self.canonical


def _interpret(suffix: str) -> tuple[Format, int]:
    """How a suffix is meant, and its power of ten or two."""
    if (power := _DECIMAL.get(suffix)) is not None:
        return Format.DECIMAL_SI, power
    if (power := _BINARY.get(suffix)) is not None:
        return Format.BINARY_SI, power
    found = _exponent(suffix)
    if found is None or abs(int(found[1])) > EXPONENT_MAX:
        raise ValueError(_SUFFIX)
    return Format.DECIMAL_EXPONENT, int(found[1])


def _rounded(number: int, scale: int) -> tuple[int, int]:
    """The number with at most nine decimal places, away from zero."""
    if scale >= _NANO:
        return number, scale
    size = -(-abs(number) // 10 ** (_NANO - scale))
    return (size if number >= 0 else -size), _NANO


def _is_plain(whole: str, fraction: str, scale: int) -> bool:
    """Whether upstream takes a decimal quantity's text for canonical."""
    digits = (whole or "0") + fraction
    return (
        len(digits) <= 18
        and scale >= _NANO
        and scale % 3 == 0
        and not digits.endswith("000")
        and digits[0] != "0"
    )


def _kept(given: str, whole: str, fraction: str, exponent: int) -> str:
    """The text of a binary quantity, where upstream takes it for canonical; else nothing."""
    digits = whole or "0"
    short = not fraction and 15 - len(digits) - exponent * 3 // 10 - 1 >= 0
    return given if short and int(digits) & 7 else ""
