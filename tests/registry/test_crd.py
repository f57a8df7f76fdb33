"""CRDs: what is wrong with one, and the Resource that a good one becomes."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clusterling.machinery.errors import FieldErrorType
from clusterling.machinery.meta import Object
from clusterling.packs.apiextensions import CUSTOM_RESOURCE_DEFINITIONS
from clusterling.registry.crd import (
    RULES_WARNING,
    CustomResourceStrategy,
    crd_warnings,
    default_crd,
    resource_of,
    storage_version,
    validate_crd,
)
from clusterling.registry.resource import Resource, Scale

RECORDED = json.loads((Path(__file__).parent / "test_crd_recorded.json").read_text())
SCHEMA = CUSTOM_RESOURCE_DEFINITIONS.versions[0].schema


def received(crd: Object) -> Object:
    """A CRD as its strategy hands it to validation."""
    made: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        **copy.deepcopy(crd),
    }
    default_crd(made)
    stored = storage_version(made)
    made["status"] = {"storedVersions": [stored] if stored else []}
    return made


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in RECORDED["created"] if not case.get("refused")]
)
def test_a_crd_is_judged_as_kube_apiserver_judges_it(case: Object) -> None:
    """Recorded from kube-apiserver 1.37.2: POST ?dryRun=All&fieldValidation=Warn."""
    crd = copy.deepcopy(case["crd"])
    unknown = SCHEMA.prune(crd)
    made = received(crd)
    errors = validate_crd(made)
    causes = [error.cause() for error in errors]
    assert sorted([c["field"], c["reason"], c["message"]] for c in causes) == case["causes"]
    if not errors:
        warnings = [f'unknown field "{path}"' for path in unknown] + crd_warnings(made)
        assert sorted(warnings) == case.get("warnings", [])


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["name"]) for case in RECORDED["created"] if case.get("refused")]
)
def test_a_crd_that_cannot_be_decoded_is_refused_one_way_or_the_other(case: Object) -> None:
    """kube-apiserver answers 400 to these; the one type that its schema cannot express is a 422 here."""
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", **case["crd"]}
    wrong = [error for error in SCHEMA.validate(crd) if error.type is FieldErrorType.TYPE_INVALID]
    assert wrong or validate_crd(received(case["crd"]))


def crd(**spec: Any) -> Object:
    made = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1", storage=True)],
            **spec,
        },
    }
    return received(made)


def version(name: str, *, storage: bool = False, **more: Any) -> Object:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
        **more,
    }


def established(crd: Object) -> Object:
    crd["status"]["conditions"] = [{"type": "Established", "status": "True"}]
    return crd


def said(new: Object, old: Object | None = None) -> list[str]:
    return [str(error) for error in validate_crd(new, old)]


def test_defaults_name_what_was_left_out() -> None:
    made = crd()
    assert made["spec"]["names"]["singular"] == "widget"
    assert made["spec"]["names"]["listKind"] == "WidgetList"
    assert made["spec"]["conversion"] == {"strategy": "None"}


def test_scope_and_kind_are_fixed_once_established() -> None:
    old, new = established(crd()), crd(scope="Cluster")
    new["spec"]["names"]["kind"] = "Gadget"
    assert said(new, old) == [
        'spec.scope: Invalid value: "Cluster": field is immutable',
        'spec.names.kind: Invalid value: "Gadget": field is immutable',
    ]
    assert said(new, crd()) == []


def test_a_version_that_may_hold_objects_cannot_be_taken_out() -> None:
    new = crd(versions=[version("v2", storage=True)])
    new["status"]["storedVersions"] = ["v1", "v2"]
    assert said(new, established(crd())) == [
        'status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage '
        "version, and must remain in spec.versions until a storage migration ensures no data remains persisted "
        "in v1 and removes v1 from status.storedVersions"
    ]


def test_an_update_is_forgiven_a_fault_that_is_stored() -> None:
    faulty = {"type": "object", "properties": {"a": {"type": "thing"}}}
    old = crd(versions=[version("v1", storage=True, schema={"openAPIV3Schema": faulty})])
    new = copy.deepcopy(old)
    new["spec"]["names"]["shortNames"] = ["other"]
    assert said(new) != []
    assert said(new, old) == []


def test_webhook_conversion_is_refused_in_clear_words() -> None:
    made = crd(conversion={"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}})
    assert said(made) == [
        "spec.conversion.strategy: Forbidden: webhook conversion is not offered by this server yet; "
        "versions may differ with strategy None"
    ]


def test_too_many_versions_are_refused() -> None:
    made = crd(versions=[version(f"v{at + 1}", storage=at == 0) for at in range(101)])
    assert said(made) == ["spec.versions: Too many: 101: must have at most 100 items"]


def test_a_crd_with_rules_is_accepted_with_a_warning_given_once() -> None:
    ruled = {"type": "object", "x-kubernetes-validations": [{"rule": "has(self.spec)"}]}
    made = crd(versions=[version("v1", storage=True, schema={"openAPIV3Schema": ruled})])
    assert said(made) == []
    assert crd_warnings(made) == [RULES_WARNING]
    assert crd_warnings(made, made) == []


def made_resource(made: Object) -> Resource:
    return resource_of(made, schema_revision=7, guard_key="~fence/x", strategy=CustomResourceStrategy())


def test_a_crd_becomes_a_resource() -> None:
    made = crd(
        versions=[
            version(
                "v1beta1",
                deprecated=True,
                additionalPrinterColumns=[
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
                    {"name": "Broken", "type": "string", "jsonPath": ".spec[?("},
                ],
            ),
            version(
                "v1",
                storage=True,
                subresources={
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                selectableFields=[{"jsonPath": ".spec.color"}],
            ),
        ]
    )
    resource = made_resource(made)
    beta, stable = resource.versions
    assert (resource.group, resource.storage_version, resource.namespaced) == ("example.com", "v1", True)
    assert (resource.builtin, resource.schema_revision, resource.guard_key) == (False, 7, "~fence/x")
    assert (resource.names.short_names, resource.names.categories) == (("wd",), ("all",))
    assert beta.deprecation_warning == "example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget"
    now = datetime.now(UTC)
    assert [c.name for c in beta.columns] == ["Name", "Size", "Broken"]
    assert [c.cell({"metadata": {"name": "a"}, "spec": {"size": 3}}, now) for c in beta.columns] == [
        "a",
        3,
        None,
    ]
    assert [c.name for c in stable.columns] == ["Name", "Age"]
    assert (stable.status, stable.selectable_fields) == (True, ("spec.color",))
    assert stable.scale == Scale("spec.replicas", "status.replicas", "")
    assert (beta.status, beta.scale) == (False, None)


def test_two_crds_with_one_schema_share_what_is_compiled() -> None:
    assert made_resource(crd()).versions[0].schema is made_resource(crd()).versions[0].schema
