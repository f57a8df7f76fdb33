"""ObjectMeta: the metadata that every kind has, decoded as a typed server decodes it, and validated.

`coerce_object_meta` is what decoding into the Go type does: types checked, unknown fields dropped and told, empty
fields left out, times normalised. `validate_object_meta` and `validate_object_meta_update` are upstream's rules
(`apimachinery/pkg/api/validation/objectmeta.go`, `apimachinery/pkg/apis/meta/v1/validation/validation.go`); they
expect coerced metadata. Paths and texts were compared with kube-apiserver 1.37.2.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    forbidden_field,
    go_quote,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.gotext import go_json, json_type
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.names import (
    is_dns1123_label,
    is_label_value,
    is_path_segment_name,
    is_path_segment_prefix,
    is_qualified_name,
    mask_trailing_dash,
)
from clusterling.machinery.timestamps import normal_rfc3339

ANNOTATIONS_BYTES_MAX: Final = 256 * 1024
MANAGER_BYTES_MAX: Final = 128
SUBRESOURCE_BYTES_MAX: Final = 256

_STANDARD_FINALIZERS: Final = frozenset({"kubernetes", "orphan", "foregroundDeletion"})


# --------------------------------------------------------------------------- decoding


class _Decoding:
    """Where a value stands, for messages: Go names the innermost struct and the path from the outermost."""

    __slots__ = ("prefix", "unknown")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.unknown: list[str] = []

    def refuse(self, value: object, struct: str, field: str, go_type: str) -> NoReturn:
        # Go tells the number where it is one, but of the wrong sort.
        given = f"number {value}" if go_type == "int64" and json_type(value) == "number" else json_type(value)
        raise ValueError(
            f"json: cannot unmarshal {given} into Go struct field "
            f"{struct}.{self.prefix}{field} of type {go_type}"
        )


# A decoder takes (decoding, value, struct, field) and returns what to keep, or None for nothing.
_Decoder = Callable[[_Decoding, Any, str, str], object]


def _string(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not str:
        decoding.refuse(value, struct, field, "string")
    return value or None


def _uid(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not str:
        decoding.refuse(value, struct, field, "types.UID")
    return value or None


def _int64(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is float and value.is_integer() and not decoding.prefix:
        # A custom resource's numbers have been through a round trip that loses the fraction.
        value = int(value)
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        decoding.refuse(value, struct, field, "int64")
    return value


def _count(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    return _int64(decoding, value, struct, field) or None


def _bool(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not bool:
        decoding.refuse(value, struct, field, "bool")
    return value


def _time(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not str:
        decoding.refuse(value, struct, field, "string")
    return normal_rfc3339(value) or None


def _string_map(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not dict:
        decoding.refuse(value, struct, field, "map[string]string")
    whole = True
    for item in value.values():
        if type(item) is not str:
            if item is not None:
                decoding.refuse(item, struct, field, "string")
            whole = False
    # Go decodes a null into the zero value: `labels: {a: null}` is `a: ""`.
    return (value if whole else {key: item or "" for key, item in value.items()}) or None


def _string_list(decoding: _Decoding, value: Any, struct: str, field: str) -> object:
    if type(value) is not list:
        decoding.refuse(value, struct, field, "[]string")
    for item in value:
        if type(item) is not str and item is not None:
            decoding.refuse(item, struct, field, "string")
    return [item or "" for item in value] or None


def _raw(_decoding: _Decoding, value: Any, _struct: str, _field: str) -> object:
    return value


def _structs(
    decoding: _Decoding, value: Any, field: str, struct: str, decoders: Mapping[str, _Decoder]
) -> list[Object]:
    """A list of one struct type, unknown fields told as `metadata.ownerReferences[0].foo`."""
    if type(value) is not list:
        decoding.refuse(value, "ObjectMeta", field, f"[]v1.{struct}")
    found: list[Object] = []
    for index, item in enumerate(value):
        if item is not None and type(item) is not dict:
            decoding.refuse(item, "ObjectMeta", field, f"v1.{struct}")
        entry: Object = {}
        for key, part in (item or {}).items():
            decoder = decoders.get(key)
            if decoder is None:
                decoding.unknown.append(f"metadata.{field}[{index}].{key}")
            elif part is not None:
                kept = decoder(decoding, part, struct, f"{field}.{key}")
                if kept is not None:
                    entry[key] = kept
        found.append(entry)
    return found


_OWNER_FIELDS: Final[dict[str, _Decoder]] = {
    "apiVersion": _string,
    "kind": _string,
    "name": _string,
    "uid": _uid,
    "controller": _bool,
    "blockOwnerDeletion": _bool,
}
_OWNER_TEXTS: Final = ("apiVersion", "kind", "name", "uid")
_MANAGED_FIELDS: Final[dict[str, _Decoder]] = {
    "manager": _string,
    "operation": _string,
    "apiVersion": _string,
    "time": _time,
    "fieldsType": _string,
    "fieldsV1": _raw,
    "subresource": _string,
}


def _owners(decoding: _Decoding, value: Any, _struct: str, field: str) -> object:
    found = _structs(decoding, value, field, "OwnerReference", _OWNER_FIELDS)
    for reference in found:
        for key in _OWNER_TEXTS:
            reference.setdefault(key, "")
    return found or None


def _managed(decoding: _Decoding, value: Any, _struct: str, field: str) -> object:
    return _structs(decoding, value, field, "ManagedFieldsEntry", _MANAGED_FIELDS) or None


_FIELDS: Final[dict[str, _Decoder]] = {
    "name": _string,
    "generateName": _string,
    "namespace": _string,
    "selfLink": _string,
    "uid": _uid,
    "resourceVersion": _string,
    "generation": _count,
    "creationTimestamp": _time,
    "deletionTimestamp": _time,
    "deletionGracePeriodSeconds": _int64,
    "labels": _string_map,
    "annotations": _string_map,
    "ownerReferences": _owners,
    "finalizers": _string_list,
    "managedFields": _managed,
}


def coerce_object_meta(given: object, *, kind: str = "") -> tuple[Object, list[str]]:
    """Metadata as a typed server keeps it, and the paths of unknown fields that were dropped (`metadata.foo`).

    None is an empty metadata. `kind` is the kind's name where the whole object decodes into a Go type (built-ins):
    messages then give the path from there. Values are shared with `given`, which is not changed. Raises ValueError
    with the words of Go's decoder, to be answered as 400 `… cannot be handled as a …: <text>`.
    """
    if given is None:
        return {}, []
    if type(given) is not dict:
        place = f"struct field {kind}.metadata" if kind else "value"
        raise ValueError(f"json: cannot unmarshal {json_type(given)} into Go {place} of type v1.ObjectMeta")
    decoding = _Decoding("metadata." if kind else "")
    kept: Object = {}
    for key, value in given.items():
        decoder = _FIELDS.get(key)
        if decoder is None:
            decoding.unknown.append(f"metadata.{key}")
        elif value is not None:
            found = decoder(decoding, value, "ObjectMeta", key)
            if found is not None:
                kept[key] = found
    return kept, decoding.unknown


# --------------------------------------------------------------------------- validation

# How a rule for names judges a generateName, where that is more than masking its trailing dash.
_PREFIX_RULES: Final[dict[object, Callable[[str], Sequence[str]]]] = {
    is_path_segment_name: is_path_segment_prefix
}


def validate_object_meta(
    meta: Object,
    *,
    namespaced: bool,
    name_problems: Callable[[str], Sequence[str]],
    path: str = "metadata",
    builtin: bool = False,
) -> list[FieldError]:
    """What is wrong with the metadata of an object being created; a name has been generated already.

    `builtin`: finalizers without a domain must be upstream's own (kubernetes: pkg/apis/core/validation).
    """
    errors: list[FieldError] = []
    if base := meta.get("generateName"):
        rule = _PREFIX_RULES.get(name_problems)
        problems = rule(base) if rule else name_problems(mask_trailing_dash(base))
        errors += [invalid_value(f"{path}.generateName", base, problem) for problem in problems]
    name = meta.get("name")
    if not name:
        errors.append(required(f"{path}.name", "name or generateName is required"))
    elif problems := name_problems(name):
        errors += [invalid_value(f"{path}.name", name, problem) for problem in problems]
    namespace = meta.get("namespace")
    if not namespaced:
        if namespace:
            errors.append(forbidden_field(f"{path}.namespace", "not allowed on this type"))
    elif not namespace:
        errors.append(required(f"{path}.namespace"))
    elif problems := is_dns1123_label(namespace):
        errors += [invalid_value(f"{path}.namespace", namespace, problem) for problem in problems]
    errors += _generation(meta, path)
    errors += _labels_and_owners(meta, path)
    if finalizers := meta.get("finalizers"):
        errors += _finalizers(finalizers, f"{path}.finalizers", builtin)
    if entries := meta.get("managedFields"):
        errors += _managed_fields(entries, f"{path}.managedFields")
    return errors


# What most updates change of metadata, if anything: it may be changed.
_FREE: Final = frozenset({"annotations", "finalizers", "generation", "labels", "managedFields"})


def validate_object_meta_update(
    new: Object, old: Object, *, path: str = "metadata", builtin: bool = False
) -> list[FieldError]:
    """What is wrong with a change of metadata. Of finalizers only new ones are judged, as upstream does."""
    # What was there before was judged when it came.
    judged = {field: value for field, value in new.items() if value != old.get(field)}
    errors = list(_labels_and_owners(judged, path))
    if entries := judged.get("managedFields"):
        errors += _managed_fields(entries, f"{path}.managedFields")
    if old.get("deletionTimestamp") and (
        extra := set(new.get("finalizers") or ()) - set(old.get("finalizers") or ())
    ):
        listed = ", ".join(go_quote(one) for one in sorted(extra))
        errors.append(
            forbidden_field(
                f"{path}.finalizers",
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{listed}}}",
            )
        )
    if not new.get("resourceVersion"):
        errors.append(invalid_value(f"{path}.resourceVersion", "", "must be specified for an update"))
    errors += _generation(new, path)
    if new.get("generation", 0) < old.get("generation", 0):
        errors.append(
            invalid_value(f"{path}.generation", new.get("generation", 0), "must not be decremented")
        )
    if not (_FREE.issuperset(judged) and new.keys() >= old.keys()):
        for field in ("name", "namespace", "uid"):
            if new.get(field, "") != old.get(field, ""):
                errors.append(immutable_field(f"{path}.{field}", new.get(field, "")))
        for field in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if new.get(field) != old.get(field):
                errors.append(immutable_field(f"{path}.{field}", new.get(field)))
    if builtin:
        finalizers = new.get("finalizers") or ()
        errors += [
            invalid_value(f"{path}.finalizers", one, problem)
            for one in finalizers
            for problem in is_qualified_name(one)
        ]
        errors += _unqualified_finalizers(finalizers, f"{path}.finalizers")
    return errors


def _generation(meta: Object, path: str) -> list[FieldError]:
    generation = meta.get("generation", 0)
    if generation >= 0:
        return []
    return [invalid_value(f"{path}.generation", generation, "must be greater than or equal to 0")]


def _labels_and_owners(meta: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := meta.get("labels"):
        errors += validate_labels(labels, f"{path}.labels")
    if annotations := meta.get("annotations"):
        errors += validate_annotations(annotations, f"{path}.annotations")
    if references := meta.get("ownerReferences"):
        errors += _owner_references(references, f"{path}.ownerReferences")
    return errors


def validate_labels(labels: Mapping[str, str], path: str) -> list[FieldError]:
    """What is wrong with a map of labels (also a template's or a selector's `matchLabels`)."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        if problems := is_qualified_name(key):
            errors += [invalid_value(path, key, problem) for problem in problems]
        if problems := is_label_value(value):
            errors += [invalid_value(path, value, problem) for problem in problems]
    return errors


def validate_annotations(annotations: Mapping[str, str], path: str) -> list[FieldError]:
    """What is wrong with a map of annotations (also a template's)."""
    errors: list[FieldError] = []
    size = 0
    for key, value in annotations.items():
        if problems := is_qualified_name(key.lower()):
            errors += [invalid_value(path, key, problem) for problem in problems]
        size += (
            len(key) + len(value)
            if value.isascii()
            else len(key) + len(value.encode("utf-8", "surrogatepass"))
        )
    if size > ANNOTATIONS_BYTES_MAX:
        errors.append(too_long(path, ANNOTATIONS_BYTES_MAX))
    return errors


def _in_go_order(reference: Object) -> Object:
    """A struct in a message has upstream's field order, which FieldError's own rendering would sort."""
    return {key: reference[key] for key in _OWNER_FIELDS if key in reference}


_CONTROLLERS_TOLD_MAX: Final = 16


def _owner_references(references: Sequence[Object], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = shown = ""
    for index, reference in enumerate(references):
        errors += _owner_reference(reference, f"{path}[{index}]")
        if reference.get("controller"):
            this = f"{reference['kind']}/{reference['name']}"
            if not controller:
                controller = this
            elif len(errors) < _CONTROLLERS_TOLD_MAX:
                # Each is told with all references.
                shown = shown or go_json([_in_go_order(one) for one in references], sort_keys=False)
                errors.append(
                    FieldError(
                        FieldErrorType.INVALID,
                        path,
                        detail=f"{shown}: Only one reference can have Controller set to true. "
                        f'Found "true" in references for {controller} and {this}',
                    )
                )
    return errors


def _owner_reference(reference: Object, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    api_version = reference["apiVersion"]
    group_version: GroupVersion | None = None
    if not api_version:
        errors.append(required(f"{path}.apiVersion", "must not be empty"))
    else:
        try:
            group_version = GroupVersion.parse(api_version)
        except ValueError:
            errors.append(
                invalid_value(f"{path}.apiVersion", api_version, "must be <group>/<version> or <version>")
            )
    errors += [
        required(f"{path}.{key}", "must not be empty")
        for key in ("kind", "name", "uid")
        if not reference[key]
    ]
    if group_version == GroupVersion("", "v1") and reference["kind"] == "Event":
        shown = go_json(_in_go_order(reference), sort_keys=False)
        errors.append(
            FieldError(
                FieldErrorType.INVALID,
                path,
                detail=f"{shown}: /v1, Kind=Event is disallowed from being an owner",
            )
        )
    return errors


def _finalizers(finalizers: Sequence[str], path: str, builtin: bool) -> list[FieldError]:
    errors = [
        invalid_value(path, finalizer, problem)
        for finalizer in finalizers
        for problem in is_qualified_name(finalizer)
    ]
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        errors.append(
            invalid_value(
                path, list(finalizers), "finalizer orphan and foregroundDeletion cannot be both set"
            )
        )
    return errors + (_unqualified_finalizers(finalizers, path) if builtin else [])


def _unqualified_finalizers(finalizers: Sequence[str], path: str) -> list[FieldError]:
    return [
        invalid_value(
            f"{path}[{index}]",
            finalizer,
            "name is neither a standard finalizer name nor is it fully qualified",
        )
        for index, finalizer in enumerate(finalizers)
        if "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS
    ]


def _managed_fields(entries: Sequence[Object], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        place = f"{path}[{index}]"
        operation = entry.get("operation", "")
        if not operation:
            errors.append(required(f"{place}.operation", "must not be empty"))
        elif operation not in {"Apply", "Update"}:
            errors.append(not_supported(f"{place}.operation", operation, ("Apply", "Update")))
        if (fields_type := entry.get("fieldsType", "")) not in {"", "FieldsV1"}:
            errors.append(invalid_value(f"{place}.fieldsType", fields_type, "must be `FieldsV1`"))
        errors += validate_field_manager(entry.get("manager", ""), f"{place}.manager")
        if len(entry.get("subresource", "").encode("utf-8", "surrogatepass")) > SUBRESOURCE_BYTES_MAX:
            errors.append(too_long(f"{place}.subresource", SUBRESOURCE_BYTES_MAX))
    return errors


def validate_field_manager(manager: str, path: str = "fieldManager") -> list[FieldError]:
    """What is wrong with a field manager's name: at most 128 bytes, all printable."""
    errors: list[FieldError] = []
    encoded = manager.encode("utf-8", "surrogatepass")
    if len(encoded) > MANAGER_BYTES_MAX:
        errors.append(too_long(path, MANAGER_BYTES_MAX))
    if manager.isascii() and manager.isprintable():
        return errors
    at = 0
    for character in manager[: 4 * MANAGER_BYTES_MAX]:
        if not (character == " " or unicodedata.category(character)[0] in "LMNPS"):
            shown = f" '{character}'" if character.isprintable() else ""
            errors.append(
                invalid_value(
                    path, manager, f"invalid character U+{ord(character):04X}{shown} (at position {at})"
                )
            )
        at += len(character.encode("utf-8", "surrogatepass"))
    return errors
