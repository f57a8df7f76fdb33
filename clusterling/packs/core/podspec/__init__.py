"""Pod specs, as pods have one and workload kinds a template of one: defaults, validation, warnings.

    with reading(obj):                      # ValueError → 400 in the words of Go's decoder
        default_pod_spec(obj["spec"])
    drop_disabled_fields(obj)
    pod_spec_problems(obj["spec"], "spec", template=False)

Upstream: kubernetes pkg/apis/core/v1/defaults.go, pkg/apis/core/validation/validation.go, pkg/api/pod.
"""

from clusterling.packs.core.podspec.annotations import field_match_problems, pod_annotation_problems
from clusterling.packs.core.podspec.defaults import (
    default_pod_spec,
    default_pod_template,
    reading,
)
from clusterling.packs.core.podspec.disabled import drop_disabled_fields
from clusterling.packs.core.podspec.validation import pod_spec_problems, pod_template_problems
from clusterling.packs.core.podspec.warnings import pod_template_warnings

__all__ = [
    "default_pod_spec",
    "default_pod_template",
    "drop_disabled_fields",
    "field_match_problems",
    "pod_annotation_problems",
    "pod_spec_problems",
    "pod_template_problems",
    "pod_template_warnings",
    "reading",
]
