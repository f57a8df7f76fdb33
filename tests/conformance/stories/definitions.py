"""The custom kinds that the stories use, and the stories of custom resource definitions themselves."""

from __future__ import annotations

from typing import Any, Final

from tests.conformance.exchange import Json, Story
from tests.conformance.stories.telling import CRDS, MERGE, STRATEGIC, TABLE, delete, get, patch, post, put

_WIDGET: Final[Json] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 0, "maximum": 100},
                "colour": {"type": "string", "default": "red", "enum": ["red", "green", "blue"]},
                "replicas": {"type": "integer", "default": 1},
                "name": {"type": "string", "maxLength": 10, "pattern": "^[a-z]+$"},
                "when": {"type": "string", "format": "date-time"},
                "port": {"x-kubernetes-int-or-string": True},
                "parts": {
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["id"],
                    "items": {
                        "type": "object",
                        "required": ["id"],
                        "properties": {"id": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                    },
                },
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "note": {"type": "string", "nullable": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "numbers": {"type": "object", "additionalProperties": {"type": "number"}},
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "phase": {"type": "string"},
                "replicas": {"type": "integer"},
                "selector": {"type": "string"},
            },
        },
    },
}

_SAMPLE: Final[Json] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "default": {"mode": "whole"},
            "properties": {
                "mode": {"type": "string", "default": "part"},
                "day": {"type": "string", "format": "date"},
                "span": {"type": "string", "format": "duration"},
                "address": {"type": "string", "format": "ipv4"},
                "range": {"type": "string", "format": "cidr"},
                "mail": {"type": "string", "format": "email"},
                "id": {"type": "string", "format": "uuid"},
                "raw": {"type": "string", "format": "byte"},
                "host": {"type": "string", "format": "hostname"},
                "link": {"type": "string", "format": "uri"},
                "small": {"type": "integer", "format": "int32"},
                "step": {"type": "integer", "multipleOf": 5},
                "above": {"type": "number", "minimum": 1, "exclusiveMinimum": True},
                "short": {"type": "string", "minLength": 2, "maxLength": 3},
                "choice": {"type": "integer", "enum": [1, 2, 3]},
                "map": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
                "few": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 2,
                    "items": {"type": "string", "default": "d"},
                },
                "nest": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "a": {"type": "string", "default": "x"},
                            "b": {
                                "type": "object",
                                "default": {},
                                "properties": {"c": {"type": "integer", "default": 7}},
                            },
                        },
                    },
                },
                "either": {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"maximum": 5}, {"enum": ["abc"]}],
                },
                "one": {
                    "type": "object",
                    "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
                    "oneOf": [{"required": ["x"]}, {"required": ["y"]}],
                },
                "no": {"type": "string", "not": {"enum": ["bad"]}},
                "embedded": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "x-kubernetes-preserve-unknown-fields": True,
                },
                "closed": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "properties": {"spec": {"type": "object"}},
                },
                "open": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"k": {"type": "integer"}}}},
                },
                "perhaps": {
                    "type": "object",
                    "nullable": True,
                    "properties": {"p": {"type": "string", "nullable": True, "default": "q"}},
                },
            },
        },
    },
}

_LATER: Final[Json] = {
    "type": "object",
    "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}

_SUBRESOURCES: Final[Json] = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
}

_COLUMNS: Final[Json] = [
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big it is"},
    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]

DEFINITIONS: Final[tuple[Json, ...]] = (
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.${group}"},
        "spec": {
            "group": "${group}",
            "scope": "Namespaced",
            "names": {
                "plural": "widgets",
                "singular": "widget",
                "kind": "Widget",
                "shortNames": ["wd"],
                "categories": ["things"],
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _WIDGET},
                    "subresources": _SUBRESOURCES,
                    "additionalPrinterColumns": _COLUMNS,
                    "selectableFields": [{"jsonPath": ".spec.colour"}],
                },
                {
                    "name": "v2",
                    "served": True,
                    "storage": False,
                    "deprecated": True,
                    "schema": {"openAPIV3Schema": _LATER},
                    "subresources": _SUBRESOURCES,
                },
            ],
        },
    },
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.${group}"},
        "spec": {
            "group": "${group}",
            "scope": "Cluster",
            "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _LATER}}
            ],
        },
    },
    {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "samples.${group}"},
        "spec": {
            "group": "${group}",
            "scope": "Namespaced",
            "names": {"plural": "samples", "singular": "sample", "kind": "Sample"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _SAMPLE}}
            ],
        },
    },
)


def _crd(name: str = "things.${ns}.example.com", **spec: Any) -> Json:
    whole: Json = {
        "group": "${ns}.example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
        **spec,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": {key: value for key, value in whole.items() if value is not None},
    }


def _version(schema: Json, name: str = "v1", **more: Json) -> Json:
    return {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **more}


def _refused(**properties: Json) -> Json:
    return _crd(versions=[_version({"type": "object", "properties": properties})])


_AT_ONCE: Final = (
    "names are accepted and the kind established in the write itself, not by controllers after it"
)
_ME: Final = f"{CRDS}/things.${{ns}}.example.com"

STORIES: Final[dict[str, Story]] = {
    "definitions that are refused": [
        post(CRDS, {}),
        post(CRDS, _crd(name="wrong.${ns}.example.com")),
        post(CRDS, _crd(group="nodots")),
        post(CRDS, _crd(scope="Global")),
        post(CRDS, _crd(scope=None)),
        post(CRDS, _crd(versions=[])),
        post(CRDS, _crd(versions=None)),
        post(CRDS, _crd(names={"plural": "things"})),
        post(CRDS, _crd(names={"plural": "Things", "kind": "thing"})),
        post(CRDS, _crd(versions=[{"name": "v1", "served": True, "storage": True}])),
        post(
            CRDS,
            _crd(
                versions=[
                    {
                        "name": "v1",
                        "served": True,
                        "storage": False,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ]
            ),
        ),
        post(CRDS, _crd(versions=[_version({"type": "object"}), _version({"type": "object"})])),
        post(CRDS, _crd(versions=[_version({"type": "object"}), _version({"type": "object"}, "v2")])),
        post(CRDS, _crd(versions=[_version({"type": "object"}, "V1")])),
        post(CRDS, _crd(versions=[_version({"type": "array"})])),
        post(CRDS, _crd(versions=[_version({})])),
        post(CRDS, _refused(spec={})),
        post(CRDS, _refused(spec={"type": "string", "pattern": "("})),
        post(CRDS, _refused(spec={"type": "array"})),
        post(CRDS, _refused(spec={"type": "string", "default": 1})),
        post(CRDS, _refused(spec={"type": "thing"})),
        post(CRDS, _refused(spec={"type": "object", "anyOf": [{"type": "object"}]})),
        post(CRDS, _refused(metadata={"type": "object", "properties": {"labels": {"type": "object"}}})),
        post(
            CRDS,
            _refused(spec={"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
        ),
        post(CRDS, _refused(spec={"$ref": "#/definitions/x"})),
        post(CRDS, _crd(versions=[_version({"type": "object"}, subresources={"scale": {}})])),
        post(
            CRDS,
            _crd(
                versions=[
                    _version(
                        {"type": "object"},
                        subresources={"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.y"}},
                    )
                ]
            ),
        ),
        post(
            CRDS,
            _crd(
                versions=[
                    _version(
                        {"type": "object"},
                        additionalPrinterColumns=[{"name": "x", "type": "thing", "jsonPath": "x"}],
                    )
                ]
            ),
        ),
        post(CRDS, _crd(versions=[_version({"type": "object"}, selectableFields=[{"jsonPath": ".spec.x"}])])),
        post(CRDS, _crd(preserveUnknownFields=True)),
        post(
            CRDS,
            _crd(conversion={"strategy": "Webhook"}),
            differs={
                "answer": "conversion webhooks are not offered yet, whatever their configuration",
            },
        ),
        post(CRDS, _crd(conversion={"strategy": "Other"})),
        post(
            CRDS,
            _crd(
                names={
                    "plural": "things",
                    "kind": "Thing",
                    "shortNames": ["Bad_One"],
                    "categories": ["Bad_Two"],
                }
            ),
        ),
        post(CRDS, _crd(unknown=1), differs={"answer.status": _AT_ONCE}),
        post(f"{CRDS}?fieldValidation=Strict&dryRun=All", _crd(unknown=1)),
        post(CRDS, _crd(group="things.k8s.io", name="things.things.k8s.io")),
    ],
    "a definition lives": [
        post(CRDS, _crd(), differs={"answer.status": _AT_ONCE}),
        post(CRDS, _crd()),
        # Established, there too, by now.
        *[get(f"{CRDS}/widgets.${{group}}")] * 2,
        get(_ME, accept=TABLE),
        patch(_ME, {"spec": {"group": "other.example.com"}}),
        patch(_ME, {"spec": {"scope": "Cluster"}}),
        patch(_ME, {"spec": {"names": {"plural": "others"}}}),
        patch(_ME, {"spec": {"names": {"kind": "Other"}}}),
        patch(
            _ME,
            {
                "spec": {
                    "versions": [
                        {
                            "name": "v2",
                            "served": True,
                            "storage": True,
                            "schema": {"openAPIV3Schema": {"type": "object"}},
                        }
                    ]
                }
            },
        ),
        patch(_ME, {"metadata": {"labels": {"a": "b"}}}, STRATEGIC),
        patch(f"{_ME}/status", {"status": {"storedVersions": []}}, MERGE),
        patch(
            _ME,
            {"spec": {"names": {"shortNames": ["thg"]}}},
            differs={"answer.status.acceptedNames": _AT_ONCE},
        ),
        put(_ME, _crd()),
        get(f"{_ME}/status"),
        get(f"{_ME}/scale"),
        delete(_ME),
        get(f"{CRDS}/nothing.example.com"),
    ],
}
