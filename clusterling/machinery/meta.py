"""The shape that every object shares: `Object`, group/version/kind, owner references, timestamps.

An object is a plain dict, as decoded from JSON: unknown fields must survive, and a CRD has no class.
Only our own values are dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from typing_extensions import override

# The one place where `Any` names an API value: JSON as decoded.
Object = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class GroupVersion:
    """`apps/v1`; the core group is the empty string and is written `v1`."""

    group: str
    version: str

    @classmethod
    def parse(cls, api_version: str) -> GroupVersion:
        """Raises ValueError for more than one slash (upstream: ParseGroupVersion)."""
        group, slash, version = api_version.rpartition("/")
        if "/" in group or (slash and not (group and version)):
            raise ValueError(f"unexpected GroupVersion string: {api_version}")
        return cls(group, version)

    @override
    def __str__(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def rfc3339(moment: datetime) -> str:
    """`metav1.Time`: whole seconds, `Z`. The moment is aware and in UTC."""
    # Twice as fast as isoformat, which every create would feel.
    return f"{moment.year:04}-{moment.month:02}-{moment.day:02}T{moment.hour:02}:{moment.minute:02}:{moment.second:02}Z"


def meta(obj: Object) -> Object:
    """The object's metadata, made if absent. The caller has checked that it is a map."""
    found = obj.get("metadata")
    if found is None:
        found = obj["metadata"] = {}
    assert isinstance(found, dict), "metadata is a map: decoding refuses anything else"
    return found


def name_of(obj: Object) -> str:
    return str(obj.get("metadata", {}).get("name", ""))


def namespace_of(obj: Object) -> str:
    return str(obj.get("metadata", {}).get("namespace", ""))
