"""Conditions of the form that kinds share, metav1.Condition: how they are written, and what is wrong with one.

Upstream: apimachinery pkg/apis/meta/v1/validation, ValidateConditions.
"""

from __future__ import annotations

import re
from typing import Final

from clusterling.machinery.errors import duplicate, invalid_value, not_supported, required, too_long
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_qualified_name
from clusterling.packs.core.podspec.rules import Problems
from clusterling.packs.core.times import read_time

REASON_CHARACTERS_MAX: Final = 1024
MESSAGE_CHARACTERS_MAX: Final = 32 * 1024

_STATUSES: Final = ("False", "True", "Unknown")
_REASON: Final = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
_NEGATIVE: Final = "must be greater than or equal to 0"


def complete_conditions(obj: Object, status: Object) -> None:
    """Writes out what Go always writes of a condition."""
    for condition in status.get("conditions") or ():
        condition.setdefault("reason", "")
        condition.setdefault("message", "")
        condition.setdefault("lastTransitionTime", None)
        read_time(obj, condition, "lastTransitionTime")


def condition_problems(status: Object) -> Problems:
    """What is wrong with the conditions of a status."""
    seen: set[str] = set()
    for index, one in enumerate(status.get("conditions") or ()):
        path, kind, reason = f"status.conditions[{index}]", one.get("type") or "", one.get("reason") or ""
        if kind in seen:
            yield duplicate(f"{path}.type", kind)
        seen.add(kind)
        if not kind:
            yield required(f"{path}.type", "is required")
        for problem in is_qualified_name(kind) if kind else ():
            yield invalid_value(f"{path}.type", kind, problem)
        if not one.get("status"):
            yield required(f"{path}.status")
        elif one["status"] not in _STATUSES:
            yield not_supported(f"{path}.status", one.get("status") or "", _STATUSES)
        if (one.get("observedGeneration") or 0) < 0:
            yield invalid_value(f"{path}.observedGeneration", one["observedGeneration"], _NEGATIVE)
        if one.get("lastTransitionTime") is None:
            yield required(f"{path}.lastTransitionTime")
        if not reason:
            yield required(f"{path}.reason")
        elif not _REASON.fullmatch(reason):
            why = (
                "a condition reason must start with alphabetic character, optionally followed by a string of "
                "alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. "
                "'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used "
                "for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
            )
            yield invalid_value(f"{path}.reason", reason, why)
        if len(reason) > REASON_CHARACTERS_MAX:
            yield too_long(f"{path}.reason", REASON_CHARACTERS_MAX)
        if len(one.get("message") or "") > MESSAGE_CHARACTERS_MAX:
            yield too_long(f"{path}.message", MESSAGE_CHARACTERS_MAX)
