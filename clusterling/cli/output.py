"""What verbs print: data to stdout as a table, JSON, YAML or names; everything said to people to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import click

from clusterling.machinery.meta import Object, name_of

_F = TypeVar("_F", bound=Callable[..., Any])

FORMATS: Final = ("table", "json", "yaml", "name")
WIDE_FORMATS: Final = ("table", "wide", "json", "yaml", "name")

# The gap between two columns of a table, as kubectl has it.
_GAP: Final = 3


def shows_colour(stream: object) -> bool:
    """https://no-color.org: any value but the empty one switches colour off."""
    is_terminal = getattr(stream, "isatty", lambda: False)()
    return bool(is_terminal) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def complain(message: str, hint: str = "") -> None:
    """One line that says what went wrong, and one that says what to do. Never switched off."""
    label = click.style("error:", fg="red", bold=True) if shows_colour(sys.stderr) else "error:"
    _tell(f"{label} {' '.join(message.split())}")
    if hint:
        _tell(f"hint: {hint}")


def say(message: str) -> None:
    """A line for people, on stderr; silent with --quiet."""
    ctx = click.get_current_context(silent=True)
    if ctx is None or not ctx.params.get("quiet"):
        _tell(message)


def _tell(line: str) -> None:
    from clusterling.cli import log_writer

    if not log_writer.say(line):
        click.echo(line, err=True)


def quiet_option(command: _F) -> _F:
    return click.option(
        "-q", "--quiet", is_flag=True, envvar="CLUSTERLING_QUIET", help="Print data and errors, nothing else."
    )(command)


def timeout_option(default_s: float, text: str) -> Callable[[_F], _F]:
    """`--timeout`, in seconds."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=default_s,
        show_default=True,
        metavar="SECONDS",
        envvar="CLUSTERLING_TIMEOUT",
        help=text,
    )


def output_option(default: str | None = "table", formats: Sequence[str] = FORMATS) -> Callable[[_F], _F]:
    """`-o`. `default` None: the verb prints nothing to stdout unless asked.

    The variable is for the verbs that print objects: what others can print, it may not name.
    """
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(formats),
        default=default,
        show_default=default is not None,
        envvar="CLUSTERLING_OUTPUT" if set(FORMATS) <= set(formats) else None,
        help="Format of the output.",
    )


def as_yaml(document: object) -> str:
    """YAML with its keys sorted, as kubectl shows it."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(document, Dumper=dumper, sort_keys=True, allow_unicode=True, default_flow_style=False)


def as_json(document: object) -> str:
    return json.dumps(document, indent=4, sort_keys=True, ensure_ascii=False) + "\n"


def in_format(document: object, output: str) -> str:
    """What `-o json` or `-o yaml` asks for."""
    return as_json(document) if output == "json" else as_yaml(document)


def as_names(objects: Iterable[Object], prefix: str) -> str:
    return "".join(f"{prefix}/{name_of(obj)}\n" for obj in objects)


def as_table(table: Object, *, headers: bool = True, wide: bool = False) -> str:
    """A meta.k8s.io/v1 Table as aligned text; columns of priority above 0 are for `wide` ones alone, as with kubectl."""
    definitions = table["columnDefinitions"] or []
    shown = [index for index, one in enumerate(definitions) if wide or not one.get("priority")]
    lines = [[str(definitions[index]["name"]).upper() for index in shown]] if headers else []
    lines += [[_cell(row["cells"][index]) for index in shown] for row in table.get("rows") or ()]
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(shown))]
    return "".join(
        (" " * _GAP).join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def as_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same of what is no Table: a heading for each column, and the cells of each row."""
    return as_table(
        {"columnDefinitions": [{"name": name} for name in columns], "rows": [{"cells": row} for row in rows]}
    )


def _cell(value: object) -> str:
    return "<none>" if value in (None, "") else " ".join(str(value).split())


def emit(text: str) -> None:
    """Data, to stdout, as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()
