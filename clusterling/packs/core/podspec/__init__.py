"""Pod specs, as pods have one and workload kinds a template of one: defaults and validation.

    with reading(obj):                      # ValueError → 400 in the words of Go's decoder
        default_pod_spec(obj["spec"])
    pod_spec_problems(obj["spec"], "spec", template=False)

Upstream: kubernetes pkg/apis/core/v1/defaults.go, pkg/apis/core/validation/validation.go.
"""

from clusterling.packs.core.podspec.defaults import (
    default_pod_spec,
    default_pod_template,
    reading,
)

__all__ = ["default_pod_spec", "default_pod_template", "reading"]
