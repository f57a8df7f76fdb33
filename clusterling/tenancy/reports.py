"""What the status of a LogicalCluster tells of its use: what it keeps, how near its limits it is, when it was last asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from clusterling.machinery.meta import Object
from clusterling.machinery.table import Column, column_from_jsonpath
from clusterling.tenancy.quota import BYTES, OBJECTS, Quota, is_kept

EXCEEDED: Final = "QuotaExceeded"
HARD_REACHED: Final = "HardLimitReached"
SOFT_EXCEEDED: Final = "SoftLimitExceeded"
WITHIN: Final = "WithinLimits"

_NAMED_MAX: Final = 8  # Limits in a condition's message.
_UNITS: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")

_FIGURES: Final[Object] = {
    "type": "object",
    "additionalProperties": {"type": "integer", "format": "int64"},
}
STATUS: Final[Object] = {
    "objectCount": {
        "type": "integer",
        "format": "int64",
        "description": "Objects that the cluster keeps, as its quota counts them, minutes ago at most. Left out where it has "
        "kept none yet.",
    },
    "storageBytes": {
        "type": "integer",
        "format": "int64",
        "description": "Bytes of all that the cluster keeps, at the same time.",
    },
    "lastActivity": {
        "type": "string",
        "format": "date-time",
        "description": "When one of the cluster's own users last asked for something, to within ten minutes.",
    },
    "quota": {
        "type": "object",
        "description": "The cluster's limits on what it keeps, those that the server sets for all included, and what is used "
        "of them, at the time of objectCount.",
        "properties": {"hard": _FIGURES, "soft": _FIGURES, "used": _FIGURES},
    },
}


def use_of(obj: Object, used: Mapping[str, int], quota: Quota, now: str) -> Object:
    """The status of a LogicalCluster brought up to what it uses, by the names that quotas have."""
    before = obj["status"]
    hard, soft = _kept(quota.hard), _kept(quota.soft)
    named = sorted({**hard, **soft})
    told: Object = {"objectCount": used[OBJECTS], "storageBytes": used[BYTES]}
    if named:
        parts = {"hard": hard, "soft": soft, "used": {name: used.get(name, 0) for name in named}}
        told["quota"] = {part: figures for part, figures in parts.items() if figures}
    rest = {name: value for name, value in before.items() if name not in (*told, "quota", "conditions")}
    conditions = [one for one in before.get("conditions") or () if one["type"] != EXCEEDED]
    if named:
        known = [one for one in before.get("conditions") or () if one["type"] == EXCEEDED]
        generation = obj["metadata"].get("generation", 1)
        conditions.append(_condition(known[0] if known else {}, hard, soft, used, generation, now))
    return {**rest, **told, "conditions": conditions}


def _kept(figures: Mapping[str, int]) -> dict[str, int]:
    return {name: figures[name] for name in sorted(figures) if is_kept(name)}


def _condition(
    before: Object,
    hard: Mapping[str, int],
    soft: Mapping[str, int],
    used: Mapping[str, int],
    generation: int,
    now: str,
) -> Object:
    """`QuotaExceeded`: a hard limit leaves room for nothing more, or there is more than a soft one says."""
    full = [name for name, most in hard.items() if used.get(name, 0) >= most]
    over = [name for name, most in soft.items() if used.get(name, 0) > most]
    if full:
        reason, limits, names = HARD_REACHED, hard, full
    else:
        reason, limits, names = (SOFT_EXCEEDED if over else WITHIN), soft, over
    status = "True" if names else "False"
    said = [f"{name}: {used.get(name, 0)} of {limits[name]}" for name in names[:_NAMED_MAX]]
    if len(names) > _NAMED_MAX:
        said.append(f"and {len(names) - _NAMED_MAX} more")
    same = before.get("status") == status
    return {
        "type": EXCEEDED,
        "status": status,
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if same else now,
        "reason": reason,
        "message": ", ".join(said) or "less is used than every limit",
    }


def shown_bytes(count: int) -> str:
    """A number of bytes as people read it: 812, 1.5Ki, 20Mi."""
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f}{_UNITS[unit]}" if unit and size < 10 else f"{size:.0f}{_UNITS[unit]}"


def _status_of(obj: Object) -> Object:
    status = obj.get("status")
    return status if isinstance(status, dict) else {}


def _storage(obj: Object, _now: datetime) -> object:
    count = _status_of(obj).get("storageBytes")
    return shown_bytes(count) if isinstance(count, int) else None


def _nearest(obj: Object, _now: datetime) -> object:
    """The hard limit that is used most."""
    quota = _status_of(obj).get("quota") or {}
    hard, used = quota.get("hard") or {}, quota.get("used") or {}
    parts = [(used.get(name, 0) / max(most, 1), name) for name, most in hard.items()]
    if not parts:
        return None
    part, name = max(parts)
    return f"{int(part * 100)}% {name}"


OBJECTS_COLUMN: Final = column_from_jsonpath(
    "Objects", "integer", ".status.objectCount", description="Objects that it keeps, minutes ago."
)
STORAGE_COLUMN: Final = Column("Storage", "string", _storage, description="Bytes that it keeps, minutes ago.")
QUOTA_COLUMN: Final = Column(
    "Quota", "string", _nearest, description="How much is used of the hard limit that is nearest.", priority=1
)
ACTIVITY_COLUMN: Final = column_from_jsonpath(
    "Last Activity",
    "date",
    ".status.lastActivity",
    description="How long ago one of its own users last asked for something.",
    priority=1,
)
