"""Tables: what `kubectl get` prints, made by the server from a kind's columns.

A `Column` knows its heading and how to compute its cell from (object, now). "Now" is handed in because ages are
durations that the server writes out ("5m30s"), as upstream does
(`apiextensions-apiserver/pkg/registry/customresource/tableconvertor`, `apimachinery/pkg/util/duration`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from clusterling.machinery.jsonpath import Budget, Path, compile_path, printed
from clusterling.machinery.meta import Object
from clusterling.machinery.timestamps import parse_rfc3339

Include = Literal["None", "Metadata", "Object"]

# (object, now) → the cell: a string, number, bool or None. `now` is aware, UTC. Must not raise for any object.
Cell = Callable[[Object, datetime], object]

NAME_DESCRIPTION: Final = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow "
    "a client to request the generation of an appropriate name automatically. Name is primarily intended for creation "
    "idempotence and configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
CREATED_DESCRIPTION: Final = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed "
    "to be set in happens-before order across separate operations. Clients may not set this value. It is represented "
    "in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
# What all the paths of one row may visit together, a printed character counting a sixteenth: a tenant writes a
# thousand columns and megabytes of object, and every row of a list pays for both.
ROW_VALUES_MAX: Final = 50_000
_CHARACTERS_A_VALUE: Final = 16

UNKNOWN: Final = "<unknown>"
INVALID: Final = "<invalid>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `type` is an OpenAPI type (or `date`), `priority` 0 is shown always, higher ones with `-o wide`.

    `cell` computes one cell by itself; `within` does so within what is left of a row's budget, where it could be much.
    """

    name: str
    type: str
    cell: Cell
    format: str = ""
    description: str = ""
    priority: int = 0
    within: Callable[[Object, datetime, Budget], object] | None = None

    def definition(self) -> Object:
        """The column as a metav1.TableColumnDefinition."""
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


def _object_name(obj: Object, _now: datetime) -> object:
    metadata = obj.get("metadata")
    return metadata.get("name", "") if isinstance(metadata, dict) else ""


def human_duration(elapsed: timedelta) -> str:
    """Two or three significant figures: `119s`, `5m30s`, `3h12m`, `2d4h`, `5y20d` (upstream: duration.HumanDuration).

    One second in the future is forgiven (clocks differ), more is `<invalid>`.
    """
    # Toward zero, as Go converts a float; // would make -1.5 s into -2.
    seconds = int(elapsed.total_seconds())
    if seconds < -1:
        return INVALID
    if seconds < 0:
        return "0s"
    minutes, hours = seconds // 60, seconds // 3600
    days, years = hours // 24, hours // (24 * 365)
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    if years < 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(major: int, major_unit: str, minor: int, minor_unit: str) -> str:
    return f"{major}{major_unit}{minor}{minor_unit}" if minor else f"{major}{major_unit}"


def age(value: object, now: datetime) -> str:
    """How long ago a metav1.Time was: `<unknown>` where there is none, `<invalid>` where it is no time."""
    if value is None or value in {"", "null"}:
        return UNKNOWN
    try:
        return human_duration(now - parse_rfc3339(str(value)))
    except ValueError:
        return INVALID


def column_from_jsonpath(
    name: str,
    type: str,  # noqa: A002 - the CRD's word for it
    json_path: str,
    *,
    format: str = "",  # noqa: A002 - likewise
    description: str = "",
    priority: int = 0,
) -> Column:
    """A CRD's additionalPrinterColumn. Raises ValueError where the path cannot be parsed."""
    path = compile_path(json_path)
    text = description or f"Custom resource definition column (in JSONPath format): {json_path}"
    within = _jsonpath_cell(path, type)
    return Column(
        name, type, lambda obj, now: within(obj, now, Budget()), format, text, priority, within=within
    )


def _jsonpath_cell(path: Path, column_type: str) -> Callable[[Object, datetime, Budget], object]:
    convert = _CONVERT.get(column_type, _nothing)

    def cell(obj: Object, now: datetime, budget: Budget) -> object:
        try:
            budget.spend(1)
            found = path.find(obj, budget)
            shown = convert(found[0], now) if found else None
            if type(shown) is str:
                budget.spend(len(shown) // _CHARACTERS_A_VALUE)
        except (ValueError, RecursionError):
            # An index out of bounds, or a comparison of unlike things: upstream leaves the cell empty. So does
            # a row that has cost enough.
            return None
        return shown

    return cell


def _integer(value: object, _now: datetime) -> object:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if abs(value) < 1 << 63 else -(1 << 63)
    return value if isinstance(value, int) else None


def _number(value: object, _now: datetime) -> object:
    if isinstance(value, float):
        # Go writes whole floats without a fraction.
        return int(value) if value.is_integer() and abs(value) < 1e21 else value
    if isinstance(value, int) and not isinstance(value, bool):
        return int(float(value))
    return None


def _boolean(value: object, _now: datetime) -> object:
    return value if isinstance(value, bool) else None


def _date(value: object, now: datetime) -> object:
    return age(value, now) if isinstance(value, str) else None


def _string(value: object, _now: datetime) -> object:
    return value if isinstance(value, str) else printed(value)


def _nothing(_value: object, _now: datetime) -> object:
    return None


_CONVERT: Final[dict[str, Callable[[object, datetime], object]]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "string": _string,
}

NAME_COLUMN: Final = Column("Name", "string", _object_name, "name", NAME_DESCRIPTION)
AGE_COLUMN: Final = column_from_jsonpath(
    "Age", "date", ".metadata.creationTimestamp", description=CREATED_DESCRIPTION
)
# The columns of a custom resource whose CRD names none. A CRD that names some has those after NAME_COLUMN.
DEFAULT_COLUMNS: Final[tuple[Column, ...]] = (NAME_COLUMN, AGE_COLUMN)


def cells(columns: Sequence[Column], obj: Object, now: datetime) -> list[object]:
    """The cells of one row. Those for which the row's budget does not suffice are None."""
    budget = Budget(ROW_VALUES_MAX)
    return [
        column.cell(obj, now) if column.within is None else column.within(obj, now, budget)
        for column in columns
    ]


def row(columns: Sequence[Column], obj: Object, *, now: datetime, include: Include = "Metadata") -> Object:
    """One metav1.TableRow. The object and its metadata are shared with the row, not copied."""
    found: Object = {"cells": cells(columns, obj, now)}
    if include == "Metadata":
        found["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj.get("metadata", {}),
        }
    elif include == "Object":
        found["object"] = obj
    else:
        # A RawExtension without an object is written as null.
        found["object"] = None
    return found


def table(
    columns: Sequence[Column],
    objects: Sequence[Object],
    *,
    now: datetime,
    list_meta: Object | None = None,
    include: Include = "Metadata",
    headers: bool = True,
) -> Object:
    """A meta.k8s.io/v1 Table with a row for each object, in order.

    `list_meta` is the list's metadata (resourceVersion, continue, remainingItemCount); for a single object hand in
    `{"resourceVersion": …}` of it. `headers` False leaves columnDefinitions null: later events of a watch, and
    `TableOptions.noHeaders`.
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta if list_meta is not None else {},
        "columnDefinitions": [column.definition() for column in columns] if headers else None,
        "rows": [row(columns, obj, now=now, include=include) for obj in objects],
    }
