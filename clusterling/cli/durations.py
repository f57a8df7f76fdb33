"""Durations as people write them on a command line: `90s`, `10m`, `1h30m`, `30d`."""

from __future__ import annotations

import re
from typing import Any, Final

import click
from typing_extensions import override

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(?:[0-9]{1,9}[smhd])+")


class Duration(click.ParamType[int]):
    """Whole seconds, from a text."""

    name = "duration"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"{value}: this is no duration as in 90s, 1h30m or 30d", param, ctx)
        return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)([smhd])", value))


DURATION: Final = Duration()


def go_duration(seconds: int) -> str:
    """As Go writes it, in hours, minutes and seconds: `1h30m0s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
