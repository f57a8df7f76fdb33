"""Resource: all the server knows of a kind, as one frozen value.

A built-in kind and a CustomResourceDefinition both become this. A pack writes it down, `registry/crd.py`
computes it, and nothing on the request path asks which of the two it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.schema import Schema
from clusterling.machinery.table import DEFAULT_COLUMNS, Column

if TYPE_CHECKING:
    from clusterling.registry.strategy import Context, Strategy

ALL_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Names:
    """What a kind is called. `plural` is the resource in the path, `kind` the type in the object."""

    plural: str
    singular: str
    kind: str
    list_kind: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """Where `scale` finds its numbers: dotted paths without a leading dot, such as `spec.replicas`.

    `selector_path` is empty where the kind has no selector; it then names a string in serialized form.
    `selector_is_object`: the path holds a LabelSelector (built-in workloads), not a string; `selector_is_map`: labels.
    """

    spec_replicas_path: str
    status_replicas_path: str
    selector_path: str = ""
    selector_is_object: bool = False
    selector_is_map: bool = False


@dataclass(frozen=True, slots=True)
class SubresourceCall:
    """One request to a subresource that computes its answer. `parent` is the object, None where it does not exist.

    `query`: the parameters, each with its values in order.
    """

    verb: str
    name: str
    namespace: str
    body: Object | None
    parent: Object | None
    query: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Converter:
    """Pure conversion between the storage version and another one, for kinds that change more than `apiVersion`.

    Both take the object and the name of the other version, and return a new object with its apiVersion and kind.
    """

    to_storage: Callable[[Object, str], Object]
    from_storage: Callable[[Object, str], Object]


# Takes the Context of the request and the call; returns the document of the answer. Raises ApiError.
SubresourceFunction = Callable[["Context", SubresourceCall], Awaitable[Object]]


# Takes the Context of the request, the object received and its namespace; returns the document of the answer.
# Raises ApiError.
Review = Callable[["Context", Object, str], Awaitable[Object]]


@dataclass(frozen=True, slots=True)
class Subresource:
    """A subresource with a function of its own (`kubeconfig`, `token`), as opposed to `status` and `scale`.

    `group`, `version` and `kind` are those of its body and answer, as discovery tells them.
    `bodies`: the kind of its body at each version that it may have, first the one that is meant where it names none;
    bodies are then held to it as objects are. `connects`: what comes and goes is no object (`exec`, `log`). `has_paths`:
    what follows its name in the path is its own (`proxy`).
    """

    name: str
    group: str
    version: str
    kind: str
    verbs: tuple[str, ...]
    function: SubresourceFunction
    bodies: tuple[Served, ...] = ()
    connects: bool = False
    has_paths: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a kind: its schema, what `kubectl get` shows of it, its subresources.

    `status`: the kind has a status subresource, so that PUT of the object leaves `.status` alone and PUT of
    `/status` changes nothing else. `empty`: makes what Go writes of an object with nothing in it (`{"spec": {}}`).
    `selectable_fields`: dotted paths usable in field selectors besides metadata.name and metadata.namespace.
    """

    name: str
    schema: Schema
    served: bool = True
    columns: tuple[Column, ...] = DEFAULT_COLUMNS
    status: bool = False
    scale: Scale | None = None
    selectable_fields: tuple[str, ...] = ()
    deprecation_warning: str = ""
    empty: Callable[[], Object] = dict


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind with all its versions. Compared by identity: a changed CRD becomes another Resource.

    `schema_revision`: entries written at or before this store revision were written under another schema;
    they are pruned and defaulted when read (decision 14). 0: the schema never changed.
    `guard_key`: a key in the cluster's keyspace that changes when the schema does; a write depends on it at
    `schema_revision`. Empty for built-ins.
    `storage`: another Resource whose objects this one shows in its own form (events.k8s.io over core events):
    keys are the other's; None for its own.
    `converter`: None where versions differ in `apiVersion` alone (conversion strategy None).
    `parts`: subresources that replace a part of the object in the manner of `status`, by the strategy's
    `prepare_for_update` (`finalize` of namespaces).
    `review`: the kind is not stored: a create is a question, and this answers it (access reviews). Its verbs are `create` alone.
    `terminating`: its CRD is being deleted, so nothing new of it can be made.
    `builtin`: decoding errors follow upstream's typed kinds (400), strategic merge patch and protobuf are accepted.
    """

    group: str
    names: Names
    namespaced: bool
    versions: tuple[Version, ...]
    storage_version: str
    strategy: Strategy
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: Mapping[str, Subresource] = field(default_factory=lambda: MappingProxyType({}))
    parts: tuple[str, ...] = ()
    storage: Resource | None = None
    converter: Converter | None = None
    review: Review | None = None
    builtin: bool = True
    terminating: bool = False
    schema_revision: int = 0
    guard_key: str = ""
    # The key prefix of all its objects within a cluster: `<group or core>/<resource>/`.
    collection: str = field(init=False)

    def __post_init__(self) -> None:
        own = f"{self.group or 'core'}/{self.names.plural}/"
        object.__setattr__(self, "collection", own if self.storage is None else self.storage.collection)

    @override
    def __eq__(self, other: object) -> bool:
        return self is other

    @override
    def __hash__(self) -> int:
        return id(self)

    def version(self, name: str) -> Version:
        """The version of that name, served or not. Raises KeyError."""
        for version in self.versions:
            if version.name == name:
                return version
        raise KeyError(name)

    def key(self, namespace: str, name: str) -> str:
        """Where an object is kept within its cluster. `namespace` is "" for what is in none."""
        return f"{self.collection}{namespace or '-'}/{name}"

    def within(self, namespace: str) -> str:
        """The prefix of the keys of all objects in a namespace; of all there are where it is ""."""
        return f"{self.collection}{namespace}/" if namespace else self.collection

    @property
    def served_versions(self) -> tuple[Version, ...]:
        return tuple(version for version in self.versions if version.served)


@dataclass(frozen=True, slots=True)
class Served:
    """A Resource at the version that a request names. What dispatch finds and every verb works on.

    `api_version` is `group_version` as objects carry it. `as_stored`: objects stored under the current schema
    are shown as they are. All but the first two follow from these, once, as every request asks for them.
    """

    resource: Resource
    version: Version
    group: str = field(init=False, compare=False)
    plural: str = field(init=False, compare=False)
    kind: str = field(init=False, compare=False)
    group_version: GroupVersion = field(init=False, compare=False)
    api_version: str = field(init=False, compare=False)
    as_stored: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        resource, version = self.resource, self.version
        group_version = GroupVersion(resource.group, version.name)
        derived = {
            "group": resource.group,
            "plural": resource.names.plural,
            "kind": resource.names.kind,
            "group_version": group_version,
            "api_version": str(group_version),
            "as_stored": version.name == resource.storage_version and resource.converter is None,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
