"""ConfigMaps: named texts and bytes, a megabyte at most. Upstream: kubernetes pkg/registry/core/configmap."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value, too_long
from clusterling.machinery.meta import Object
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.content import (
    CONTENT_BYTES_MAX,
    decoded_bytes,
    immutable_problems,
    key_problems,
    read_bytes,
)
from clusterling.registry.strategy import Context, Strategy


class ConfigMapStrategy(Strategy):
    has_generation = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        read_bytes(new, "binaryData")
        for field in ("data", "binaryData"):
            if not new.get(field):
                new.pop(field, None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        data, binary = new.get("data") or {}, new.get("binaryData") or {}
        found = key_problems(data, "data")
        if binary:
            found += [
                invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData")
                for key in sorted(data.keys() & binary.keys())
            ]
            found += key_problems(binary, "binaryData")
        if _text_bytes(data) + sum(map(decoded_bytes, binary.values())) > CONTENT_BYTES_MAX:
            found.append(too_long("[]", CONTENT_BYTES_MAX))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        return [*immutable_problems(new, old, ("data", "binaryData")), *self.validate(ctx, new)]


def _text_bytes(data: dict[str, str]) -> int:
    return len("".join(data.values()).encode())


def _count(obj: Object, _now: datetime) -> int:
    return len(obj.get("data") or ()) + len(obj.get("binaryData") or ())


CONFIGMAPS: Final = builtin.resource(
    "",
    "v1",
    "configmaps",
    strategy=ConfigMapStrategy(),
    columns=(NAME_COLUMN, Column("Data", "string", _count), builtin.AGE),
)
