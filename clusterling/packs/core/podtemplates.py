"""PodTemplates: a template by itself. Upstream: kubernetes pkg/registry/core/podtemplate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec import (
    default_pod_template,
    drop_disabled_fields,
    pod_template_problems,
    pod_template_warnings,
    reading,
)
from clusterling.packs.workloads import container_columns, labels_text
from clusterling.registry.strategy import Context, Strategy


class PodTemplateStrategy(Strategy):
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        with reading(new):
            default_pod_template(new.setdefault("template", {}))
        drop_disabled_fields(new["template"])

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return pod_template_problems(new["template"], "template")

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if old is not None and meta(old).get("generation") == meta(new).get("generation"):
            return ()
        return pod_template_warnings(new["template"], "template")


def _template(obj: Object) -> Object:
    found: Object = obj.get("template") or {}
    return found


PODTEMPLATES: Final = builtin.resource(
    "",
    "v1",
    "podtemplates",
    strategy=PodTemplateStrategy(),
    columns=(
        NAME_COLUMN,
        *container_columns(_template, priority=0),
        Column(
            "Pod Labels",
            "string",
            lambda obj, _: labels_text((_template(obj).get("metadata") or {}).get("labels")),
            "",
            "The labels for the pod template.",
        ),
    ),
)
