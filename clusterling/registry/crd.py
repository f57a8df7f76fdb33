"""CustomResourceDefinitions as values: their defaults, their rules, and the Resource that one becomes. Pure.

Upstream: apiextensions-apiserver `pkg/apis/apiextensions/{v1/defaults.go,v1/conversion.go,validation/validation.go}`,
`pkg/registry/customresource`. Errors come under upstream's *internal* paths, which clients have learnt to expect:
what all versions have alike is reported under `spec.validation`, `spec.subresources` and so on, not per version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import orjson

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden_field,
    go_quote,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1035_label, is_dns1123_subdomain
from clusterling.machinery.schema import LARGE_BYTES, compile_schema, compile_text
from clusterling.machinery.schema.correlation import json_equal
from clusterling.machinery.schema.formats import is_request_uri
from clusterling.machinery.structural import (
    STRICT,
    Leniency,
    anywhere,
    default_errors,
    drop_unreadable,
    field_of,
    is_structural,
    key_item_errors,
    set_item_errors,
    unrecognized_formats,
    validate_schema,
)
from clusterling.machinery.table import DEFAULT_COLUMNS, NAME_COLUMN, Column, column_from_jsonpath
from clusterling.registry.catalog import version_priority
from clusterling.registry.customresource import CustomResourceStrategy
from clusterling.registry.resource import Names, Resource, Scale, Version

__all__ = [
    "CLEANUP_FINALIZER",
    "GROUP",
    "PLURAL",
    "SCHEMA_FENCES",
    "CustomResourceStrategy",
    "condition",
    "crd_warnings",
    "decoded",
    "default_crd",
    "is_true",
    "resource_of",
    "schema_fence",
    "schemas",
    "storage_version",
    "validate_crd",
    "validate_crd_status",
]

GROUP: Final = "apiextensions.k8s.io"
PLURAL: Final = "customresourcedefinitions"
# Holds a CRD that is being deleted until its instances are gone.
CLEANUP_FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
SCHEMA_FENCES: Final = "~fence/crd-schema/"
SELECTABLE_FIELDS_MAX: Final = 8
VERSIONS_MAX: Final = 100  # Ours: each has walkers of its own in every process.
RULES_WARNING: Final = (
    "x-kubernetes-validations: this server accepts CEL rules but does not evaluate them yet"
)
_BEGINNING_BYTES: Final = 256
_APPROVAL: Final = "api-approved.kubernetes.io"
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS: Final = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_VALIDATION_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")


def decoded(value: bytes) -> Object:
    """A stored definition. The schemas of a large one are left as they are written, as `msgspec.Raw`: most are not needed soon."""
    if len(value) > LARGE_BYTES:
        try:
            return _decoded_apart(value)
        except (msgspec.DecodeError, ValueError, LookupError, TypeError):
            # It is not shaped as those are that were validated; whoever looks at it will say so.
            pass
    crd: Object = orjson.loads(value)
    return crd


class _Holder(msgspec.Struct, gc=False):
    openAPIV3Schema: msgspec.Raw = msgspec.Raw()  # noqa: N815 (the API's word)


class _Version(msgspec.Struct, gc=False):
    schema: _Holder | None = None


class _Spec(msgspec.Struct, gc=False):
    versions: list[_Version]


class _Schemas(msgspec.Struct, gc=False):
    """Where the schemas are: all else is passed over."""

    spec: _Spec


_schemas_of: Final = msgspec.json.Decoder(_Schemas).decode


def _decoded_apart(value: bytes) -> Object:
    """Cuts large schemas out of the text, so that what is left is small, and puts them where they were."""
    kept: list[bytes] = []
    found: dict[int, msgspec.Raw] = {}
    end = 0
    for at, version in enumerate(_schemas_of(value).spec.versions):
        schema = msgspec.Raw() if version.schema is None else version.schema.openAPIV3Schema
        text = memoryview(schema)
        if text.nbytes <= LARGE_BYTES:
            continue
        # Quicker than to look for all of it; where there are several, it is in their order.
        start = value.index(text[:_BEGINNING_BYTES], end)
        while value[start : start + text.nbytes] != text:
            start = value.index(text[:_BEGINNING_BYTES], start + 1)
        kept += (value[end:start], b"null")
        end = start + text.nbytes
        found[at] = schema
    crd: Object = orjson.loads(b"".join((*kept, value[end:])))
    for at, schema in found.items():
        crd["spec"]["versions"][at]["schema"]["openAPIV3Schema"] = schema
    return crd


def schema_fence(name: str) -> str:
    """The key whose revision is that of a CRD's schema; writes of its objects depend on it."""
    return f"{SCHEMA_FENCES}-/{name}"


# ---------------------------------------------------------------------- defaults


def default_crd(crd: Object) -> None:
    """Fills in, in place, what the API defaults: names.singular, names.listKind, conversion, a webhook's port."""
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind") and kind:
        names["listKind"] = f"{kind}List"
    conversion = spec.get("conversion")
    if conversion is None:
        conversion = spec["conversion"] = {"strategy": "None"}
    service = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("service")
    if service is not None:
        service.setdefault("port", 443)
    for schema in schemas(crd):
        drop_unreadable(schema)


def storage_version(crd: Object) -> str:
    """The name of the version objects are stored in; "" where the spec names none."""
    for version in crd["spec"].get("versions") or ():
        if version.get("storage"):
            name: str = version.get("name") or ""
            return name
    return ""


def condition(crd: Object, name: str) -> Object | None:
    for one in (crd.get("status") or {}).get("conditions") or ():
        if one.get("type") == name:
            found: Object = one
            return found
    return None


def is_true(crd: Object, name: str) -> bool:
    found = condition(crd, name)
    return found is not None and found.get("status") == "True"


# ---------------------------------------------------------------------- rules


@dataclass(frozen=True, slots=True)
class _Hub:
    """The spec in upstream's internal form: what versions have alike stands once, at the top.

    `shared` holds, by v1's name of the field, what is the same (and may be absent) in all versions.
    """

    spec: Object
    versions: list[Object]
    shared: dict[str, Any]

    @classmethod
    def of(cls, spec: Object) -> _Hub:
        versions: list[Object] = spec.get("versions") or []
        shared = {}
        for field in _SHARED:
            values = [version.get(field) or None for version in versions]
            if values and all(json_equal(value, values[0]) for value in values):
                shared[field] = values[0]
        return cls(spec, versions, shared)

    @property
    def named(self) -> bool:
        """There is a list of versions, be it an empty one."""
        return self.spec.get("versions") is not None

    def own(self, version: Object, field: str) -> Any:
        """What the version has for itself alone."""
        return None if field in self.shared else version.get(field)

    @property
    def places(self) -> Iterator[tuple[Object, str]]:
        """Where schemas, subresources, columns and selectable fields stand: each version, then the top."""
        for at, version in enumerate(self.versions):
            mine = {field: self.own(version, field) for field in _SHARED}
            yield {**mine, "name": version.get("name")}, f"spec.versions[{at}]"
        yield {**dict.fromkeys(_SHARED), **self.shared, "name": ""}, "spec"


_SHARED: Final = ("schema", "subresources", "additionalPrinterColumns", "selectableFields")


def _schema_of(holder: Object) -> Object | None:
    found: Object | None = (holder.get("schema") or {}).get("openAPIV3Schema")
    return found


def schemas(crd: Object) -> list[Object]:
    """The schemas of all versions that have one."""
    found = (_schema_of(version) for version in crd["spec"].get("versions") or ())
    return [schema for schema in found if schema is not None]


def validate_crd(crd: Object, old: Object | None = None) -> list[FieldError]:
    """Everything wrong with a CRD beyond its metadata; `old` is what an update replaces.

    The CRD's types have been checked (its own schema), its defaults filled in, and its status computed.
    """
    errors: list[FieldError] = []
    if old is None:
        errors += _name_errors(crd)
    wrong = list(_spec_errors(crd["spec"], STRICT, old))
    if wrong and old is not None:
        # Worked out only now: it costs as much as the check itself.
        wrong = list(_spec_errors(crd["spec"], _leniency(old), old))
    errors += wrong
    if old is not None:
        errors += _immutable_errors(crd["spec"], old)
    status = crd.get("status") or {}
    errors += _names_errors(status.get("acceptedNames") or {}, "status.acceptedNames")
    errors += _stored_version_errors(status.get("storedVersions") or [], crd["spec"])
    errors += _approval_errors(crd, old)
    if crd["spec"].get("preserveUnknownFields") and not (old and old["spec"].get("preserveUnknownFields")):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
            "spec.versions[*].schema instead"
        )
        errors.append(invalid_value("spec.preserveUnknownFields", True, detail))
    return errors


def validate_crd_status(crd: Object) -> list[FieldError]:
    """What is wrong with a write of a CRD's status."""
    names = (crd.get("status") or {}).get("acceptedNames") or {}
    return list(_names_errors(names, "status.acceptedNames"))


def _name_errors(crd: Object) -> Iterator[FieldError]:
    name = crd["metadata"].get("name") or ""
    names = crd["spec"].get("names") or {}
    if name and name != f"{names.get('plural') or ''}.{crd['spec'].get('group') or ''}":
        yield invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group')


def _leniency(old: Object) -> Leniency:
    """An update is not asked for more than what is stored already keeps."""
    found = schemas(old)
    return Leniency(
        structural=not all(map(is_structural, found)),
        property_types=any(
            anywhere(schema, lambda one: bool(one.get("type")) and one["type"] not in _VALIDATION_TYPES)
            for schema in found
        ),
        unpruned_defaults=any(
            error.detail == "must not have unknown fields"
            for schema in found
            if is_structural(schema)
            for error in default_errors(schema, "")
        ),
        set_items=any(anywhere(schema, lambda one: any(set_item_errors(one, ""))) for schema in found),
        map_keys=any(anywhere(schema, lambda one: any(key_item_errors(one, ""))) for schema in found),
    )


def _spec_errors(spec: Object, leniency: Leniency, old: Object | None) -> Iterator[FieldError]:
    """validateCustomResourceDefinitionSpec."""
    hub = _Hub.of(spec)
    yield from _group_errors(spec.get("group") or "")
    scope = spec.get("scope") or ""
    if not scope:
        yield required("spec.scope")
    elif scope not in ("Cluster", "Namespaced"):
        yield not_supported("spec.scope", scope, ("Cluster", "Namespaced"))
    if len(hub.versions) > VERSIONS_MAX:
        yield too_many("spec.versions", len(hub.versions), VERSIONS_MAX)
        return
    yield from _missing_schema_errors(hub, spec, old)
    for at, version in enumerate(hub.versions):
        problems = is_dns1035_label(version.get("name") or "")
        if problems:
            yield invalid_value(f"spec.versions[{at}].name", version.get("name") or "", ",".join(problems))
        for text in _deprecation_problems(version):
            path = f"spec.versions[{at}].deprecationWarning"
            yield invalid_value(path, version.get("deprecationWarning"), text)
    places = list(hub.places)
    for place, path in places[:-1]:
        yield from _place_errors(place, path, leniency, old, has_status=_has_status(place, hub))
    yield from _version_errors(hub)
    names = spec.get("names") or {}
    yield from (required(f"spec.names.{name}") for name in _NAMES if not names.get(name))
    yield from _names_errors(names, "spec.names")
    any_status = any("status" in (version.get("subresources") or {}) for version in hub.versions)
    yield from _place_errors(places[-1][0], "spec", leniency, old, has_status=any_status)
    yield from _conversion_errors(spec.get("conversion") or {})


def _has_status(place: Object, hub: _Hub) -> bool:
    subresources = place.get("subresources") or hub.shared.get("subresources") or {}
    return subresources.get("status") is not None


def _group_errors(group: str) -> Iterator[FieldError]:
    problems = is_dns1123_subdomain(group) if group else []
    if not group:
        yield required("spec.group")
    elif problems:
        yield invalid_value("spec.group", group, ",".join(problems))
    elif "." not in group:
        yield invalid_value("spec.group", group, "should be a domain with at least one dot")


def _missing_schema_errors(hub: _Hub, spec: Object, old: Object | None) -> Iterator[FieldError]:
    if _schema_of(hub.shared) is not None:
        return
    lenient = old is not None and len(schemas(old)) < len(old["spec"].get("versions") or ())
    for at, version in enumerate(hub.versions):
        if _schema_of({"schema": hub.own(version, "schema")}) is not None:
            continue
        path = f"spec.versions[{at}].schema.openAPIV3Schema"
        if not lenient:
            yield required(path)
        elif version.get("served") and not spec.get("preserveUnknownFields"):
            yield required(path, "because otherwise all fields are pruned")


def _deprecation_problems(version: Object) -> Iterator[str]:
    text = version.get("deprecationWarning")
    if text is None:
        return
    if not version.get("deprecated"):
        yield "can only be set for deprecated versions"
        return
    if len(text.encode()) > 256:
        yield "must be <= 256 characters long"
    if not text:
        yield "must not be an empty string"
    at = 0
    for char in text:
        # Go's IsPrint knows no space but U+0020.
        if not char.isprintable():
            yield (
                f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
            )
            return
        at += len(char.encode())


def _place_errors(
    place: Object, path: str, leniency: Leniency, old: Object | None, *, has_status: bool
) -> Iterator[FieldError]:
    """One version, or what all versions share."""
    schema = _schema_of(place)
    holder = "validation" if path == "spec" else "schema"
    if schema is not None:
        here = f"{path}.{holder}.openAPIV3Schema"
        if has_status:
            yield from _status_root_errors(schema, here)
        if schema.get("nullable"):
            yield forbidden_field(f"{here}.nullable", "nullable cannot be true at the root")
        yield from validate_schema(schema, here, leniency)
    yield from _subresource_errors(place.get("subresources") or {}, f"{path}.subresources")
    for at, column in enumerate(place.get("additionalPrinterColumns") or ()):
        yield from _column_errors(column, f"{path}.additionalPrinterColumns[{at}]")
    fields = place.get("selectableFields") or []
    if fields:
        yield from _selectable_errors(fields, schema, path, place["name"], old)


# What may stand at the root of a schema whose status is split off, by upstream's name of the Go field.
_AT_ROOT: Final = {
    "description": "Description", "type": "Type", "format": "Format", "title": "Title", "maximum": "Maximum",
    "exclusiveMaximum": "ExclusiveMaximum", "minimum": "Minimum", "exclusiveMinimum": "ExclusiveMinimum",
    "maxLength": "MaxLength", "minLength": "MinLength", "pattern": "Pattern", "maxItems": "MaxItems",
    "minItems": "MinItems", "uniqueItems": "UniqueItems", "multipleOf": "MultipleOf", "required": "Required",
    "items": "Items", "properties": "Properties", "externalDocs": "ExternalDocs", "example": "Example",
    "x-kubernetes-preserve-unknown-fields": "XPreserveUnknownFields", "x-kubernetes-validations": "XValidations",
}  # fmt: skip


def _status_root_errors(schema: Object, here: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if kind and kind != "object":
        detail = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        yield invalid_value(f"{here}.type", kind, detail)
        return
    for key, value in schema.items():
        if key not in _AT_ROOT and value not in (None, False, "", [], {}):
            allowed = " ".join(_AT_ROOT.values())
            detail = (
                f"only [{allowed}] fields are allowed at the root of the schema "
                "if the status subresource is enabled"
            )
            yield invalid_value(here, schema, detail)
            return


def _subresource_errors(subresources: Object, path: str) -> Iterator[FieldError]:
    scale = subresources.get("scale")
    if scale is None:
        return
    for field, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value, here = scale.get(field) or "", f"{path}.scale.{field}"
        if not value:
            yield required(here)
        elif not value.startswith("."):
            yield invalid_value(here, value, "must be a simple json path starting with .")
        elif not value.startswith(root):
            yield invalid_value(here, value, f"should be a json path under {root.removesuffix('.')}")
    value, here = scale.get("labelSelectorPath") or "", f"{path}.scale.labelSelectorPath"
    if value and not value.startswith("."):
        yield invalid_value(here, value, "must be a simple json path starting with .")
    elif value and not value.startswith((".spec.", ".status.")):
        yield invalid_value(here, value, "should be a json path under either .spec or .status")


def _column_errors(column: Object, path: str) -> Iterator[FieldError]:
    if not column.get("name"):
        yield required(f"{path}.name")
    kind = column.get("type") or ""
    kinds = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not kind:
        yield required(f"{path}.type", kinds)
    elif kind not in _COLUMN_TYPES:
        yield invalid_value(f"{path}.type", kind, kinds)
    wanted = column.get("format") or ""
    if wanted and wanted not in _COLUMN_FORMATS:
        yield invalid_value(f"{path}.format", wanted, f"must be one of {','.join(_COLUMN_FORMATS)}")
    json_path = column.get("jsonPath") or ""
    if not json_path:
        yield required(f"{path}.JSONPath")
    elif not json_path.startswith("."):
        yield invalid_value(f"{path}.JSONPath", json_path, "must be a simple json path starting with .")


def _selectable_errors(
    fields: list[Object], schema: Object | None, path: str, version: str, old: Object | None
) -> Iterator[FieldError]:
    where = f"{path}.selectableFields"
    if schema is None:
        detail = (
            "may only be set when validations.schema is included"
            if path == "spec"
            else "may only be set when `version.schema.openAPIV3Schema` is not included"
        )
        yield invalid_value(where, "", detail)
        return
    unique: set[tuple[str, ...]] = set()
    for at, one in enumerate(fields):
        text, here = one.get("jsonPath") or "", f"{where}[{at}].jsonPath"
        if not text:
            yield required(here)
            continue
        found = field_of(schema, text, allow_brackets=False)
        if isinstance(found, str):
            yield invalid_value(here, text, f"is an invalid path: {found}")
            continue
        if found.names[:1] == ("metadata",):
            yield invalid_value(here, text, "must not point to fields in metadata")
        if (found.schema or {}).get("type") not in ("string", "boolean", "integer"):
            detail = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            yield invalid_value(here, text, detail)
        if found.names in unique:
            yield duplicate(here, text)
        unique.add(found.names)
    if len(unique) > SELECTABLE_FIELDS_MAX and not _had_as_many(old, version, fields):
        yield too_many(where, len(unique), SELECTABLE_FIELDS_MAX)


def _had_as_many(old: Object | None, version: str, fields: list[Object]) -> bool:
    """The stored CRD has the same fields: it was accepted under another limit."""
    before = [] if old is None else old["spec"].get("versions") or []
    return any(
        one.get("selectableFields") == fields for one in before if not version or one.get("name") == version
    )


def _version_errors(hub: _Hub) -> Iterator[FieldError]:
    names = [version.get("name") or "" for version in hub.versions]
    if len(set(names)) < len(names):
        yield _about_versions(hub, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in hub.versions) != 1:
        yield _about_versions(hub, "must have exactly one version marked as storage version")
    problems = is_dns1035_label(names[0]) if names and names[0] else []
    if problems:
        yield invalid_value("spec.version", names[0], ",".join(problems))


def _about_versions(hub: _Hub, detail: str) -> FieldError:
    """An error that shows the versions as Go's internal struct, whose fields have no JSON names but an order."""
    shown = [
        {
            "Name": version.get("name") or "",
            "Served": bool(version.get("served")),
            "Storage": bool(version.get("storage")),
            "Deprecated": bool(version.get("deprecated")),
            "DeprecationWarning": version.get("deprecationWarning"),
            "Schema": hub.own(version, "schema"),
            "Subresources": hub.own(version, "subresources"),
            "AdditionalPrinterColumns": hub.own(version, "additionalPrinterColumns"),
            "SelectableFields": hub.own(version, "selectableFields"),
        }
        for version in hub.versions
    ]
    text = orjson.dumps(shown).decode() if hub.named else "null"
    return FieldError(FieldErrorType.INVALID, "spec.versions", detail=f"{text}: {detail}")


_NAMES: Final = ("plural", "singular", "kind", "listKind")


def _names_errors(names: Object, path: str) -> Iterator[FieldError]:
    for field in _NAMES:
        value = names.get(field) or ""
        mixed = field in ("kind", "listKind")
        problems = is_dns1035_label(value.lower() if mixed else value) if value else []
        if problems:
            text = ",".join(problems)
            if mixed:
                text = f"may have mixed case, but should otherwise match: {text}"
            yield invalid_value(f"{path}.{field}", value, text)
    yield from _label_list_errors(names, "shortNames", path)
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        yield invalid_value(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same")
    yield from _label_list_errors(names, "categories", path)


def _label_list_errors(names: Object, field: str, path: str) -> Iterator[FieldError]:
    for at, value in enumerate(names.get(field) or ()):
        problems = is_dns1035_label(value)
        if problems:
            yield invalid_value(f"{path}.{field}[{at}]", value, ",".join(problems))


def _conversion_errors(conversion: Object) -> Iterator[FieldError]:
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook") or {}
    if not strategy:
        yield required("spec.conversion.strategy")
    elif strategy == "Webhook":
        detail = (
            "webhook conversion is not offered by this server yet; versions may differ with strategy None"
        )
        yield forbidden_field("spec.conversion.strategy", detail)
        return
    elif strategy != "None":
        yield not_supported("spec.conversion.strategy", strategy, ("None", "Webhook"))
    detail = "should not be set when strategy is not set to Webhook"
    if webhook.get("clientConfig") is not None:
        yield forbidden_field("spec.conversion.webhookClientConfig", detail)
    if webhook.get("conversionReviewVersions"):
        yield forbidden_field("spec.conversion.conversionReviewVersions", detail)


def _immutable_errors(spec: Object, old: Object) -> Iterator[FieldError]:
    before = old["spec"]
    names, old_names = spec.get("names") or {}, before.get("names") or {}
    if is_true(old, "Established"):
        if spec.get("scope") != before.get("scope"):
            yield immutable_field("spec.scope", spec.get("scope") or "")
        if names.get("kind") != old_names.get("kind"):
            yield immutable_field("spec.names.kind", names.get("kind") or "")
    if spec.get("group") != before.get("group"):
        yield immutable_field("spec.group", spec.get("group") or "")
    if names.get("plural") != old_names.get("plural"):
        yield immutable_field("spec.names.plural", names.get("plural") or "")


def _stored_version_errors(stored: list[str], spec: Object) -> Iterator[FieldError]:
    path = "status.storedVersions"
    if not stored:
        yield invalid_value(path, None, "must have at least one stored version")
        return
    missing = {name: at for at, name in enumerate(stored)}
    for version in spec.get("versions") or ():
        name = version.get("name") or ""
        if version.get("storage") and name not in missing:
            yield invalid_value(path, stored, f"must have the storage version {name}")
        missing.pop(name, None)
    for name, at in missing.items():
        detail = (
            f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            f"spec.versions until a storage migration ensures no data remains persisted in {name} and removes "
            f"{name} from status.storedVersions"
        )
        yield invalid_value(f"{path}[{at}]", name, detail)


def _approval_errors(crd: Object, old: Object | None) -> Iterator[FieldError]:
    """Groups of the Kubernetes community need a sign of approval (KEP 1111)."""
    group = crd["spec"].get("group") or ""
    if not (f".{group}".endswith((".k8s.io", ".kubernetes.io"))):
        return
    state = _approval(crd)
    if old is not None and state == _approval(old):
        return
    path, said = f"metadata.annotations[{_APPROVAL}]", f"must have approval annotation {go_quote(_APPROVAL)}"
    reference = "see https://github.com/kubernetes/enhancements/pull/1111"
    if state == "missing":
        yield required(path, f"protected groups {said}, {reference}")
    elif state == "invalid":
        value = crd["metadata"]["annotations"][_APPROVAL]
        detail = (
            f'protected groups {said} with either a URL or a reason starting with "unapproved", {reference}'
        )
        yield invalid_value(path, value, detail)


def _approval(crd: Object) -> str:
    value: str = (crd["metadata"].get("annotations") or {}).get(_APPROVAL) or ""
    if not value:
        return "missing"
    if value.startswith("unapproved"):
        return "bypassed"
    if is_request_uri(value):
        try:
            parts = urlsplit(value)
        except ValueError:
            return "invalid"
        if parts.scheme and parts.netloc:
            return "approved"
    return "invalid"


def crd_warnings(crd: Object, old: Object | None = None) -> list[str]:
    """Warnings that a write of the CRD answers with; an update only those that it brings about."""
    before = [] if old is None else crd_warnings(old)
    formats = [
        f"unrecognized format {go_quote(one)}" for s in schemas(crd) for one in unrecognized_formats(s)
    ]
    sets: set[str] = set()

    def look(schema: Object) -> bool:
        items = schema.get("items")
        kind = items.get("type") if isinstance(items, dict) else ""
        if schema.get("x-kubernetes-list-type") == "set" and kind in ("object", "array"):
            sets.add(
                f"x-kubernetes-list-type: set for items of type {go_quote(str(kind))} "
                "is not supported by server-side apply or CEL validation rules"
            )
        return False

    rules = False
    for schema in schemas(crd):
        anywhere(schema, look)
        rules = rules or anywhere(schema, lambda one: bool(one.get("x-kubernetes-validations")))
    found = [*formats, *sorted(sets), *([RULES_WARNING] if rules else [])]
    return [text for text in found if text not in before]


# ---------------------------------------------------------------------- the Resource


def resource_of(
    crd: Object, *, schema_revision: int, guard_key: str, strategy: CustomResourceStrategy
) -> Resource:
    """The kind that an established CRD defines. Raises ValueError or KeyError for a spec that was never validated."""
    spec = crd["spec"]
    names = (crd.get("status") or {}).get("acceptedNames") or {}
    if not names.get("plural"):
        names = spec["names"]
    newest = _newest(spec)
    versions = tuple(_version_of(spec, version, newest) for version in spec["versions"])
    return Resource(
        group=spec["group"],
        names=Names(
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            kind=names["kind"],
            list_kind=names.get("listKind") or f"{names['kind']}List",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
        ),
        namespaced=spec["scope"] == "Namespaced",
        versions=versions,
        storage_version=storage_version(crd),
        strategy=strategy.knowing(versions),
        builtin=False,
        schema_revision=schema_revision,
        guard_key=guard_key,
    )


def _version_of(spec: Object, version: Object, newest: str) -> Version:
    given: Object | msgspec.Raw | None = _schema_of(version)
    preserve = bool(spec.get("preserveUnknownFields"))
    if isinstance(given, msgspec.Raw):
        schema = compile_text(bytes(given), preserve_unknown=preserve)
    else:
        schema = compile_schema(
            given or {"x-kubernetes-preserve-unknown-fields": True}, preserve_unknown=preserve
        )
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    columns = version.get("additionalPrinterColumns") or ()
    return Version(
        name=version["name"],
        schema=schema,
        served=bool(version.get("served")),
        columns=(NAME_COLUMN, *map(_column, columns)) if columns else DEFAULT_COLUMNS,
        status=subresources.get("status") is not None,
        scale=None
        if scale is None
        else Scale(
            spec_replicas_path=scale["specReplicasPath"].removeprefix("."),
            status_replicas_path=scale["statusReplicasPath"].removeprefix("."),
            selector_path=(scale.get("labelSelectorPath") or "").removeprefix("."),
        ),
        selectable_fields=tuple(
            one["jsonPath"].removeprefix(".") for one in version.get("selectableFields") or ()
        ),
        deprecation_warning=_deprecation_warning(spec, version, newest),
    )


def _column(column: Object) -> Column:
    name, kind, path = column["name"], column["type"], column["jsonPath"]
    wanted, description = column.get("format") or "", column.get("description") or ""
    priority = column.get("priority") or 0
    try:
        return column_from_jsonpath(
            name, kind, path, format=wanted, description=description, priority=priority
        )
    except ValueError:
        # Accepted upstream too, where the kind is then not served at all; here its cells stay empty.
        return Column(name, kind, lambda _obj, _now: None, wanted, description, priority)


def _deprecation_warning(spec: Object, version: Object, newest: str) -> str:
    """Upstream: customresource_handler.go, defaultDeprecationWarning."""
    if not version.get("deprecated"):
        return ""
    own: str | None = version.get("deprecationWarning")
    if own is not None:
        return own
    group, kind, name = spec["group"], spec["names"]["kind"], version["name"]
    text = f"{group}/{name} {kind} is deprecated"
    mine = version_priority(name)
    return f"{text}; use {group}/{newest} {kind}" if newest and version_priority(newest) < mine else text


def _newest(spec: Object) -> str:
    """The version that those who use a deprecated one are pointed to: the foremost that is served and is not, "" if none."""
    names = [one["name"] for one in spec["versions"] if one.get("served") and not one.get("deprecated")]
    return min(names, key=version_priority, default="")
