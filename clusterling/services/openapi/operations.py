"""The operations of a resource, as facts that both OpenAPI versions are written from.

Upstream: apiserver/pkg/endpoints/installer.go (registerResourceHandlers) for built-in kinds,
apiextensions-apiserver/pkg/controller/openapi/builder/builder.go for custom ones; they differ in small ways, kept here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from clusterling.machinery.meta import Object
from clusterling.machinery.steps import Steps
from clusterling.registry.resource import Served, Subresource
from clusterling.services.openapi.schemas import (
    META,
    SCALE,
    Definitions,
    custom_kind,
    custom_list,
    kind_names,
)

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
ANSWER_TYPES: Final = (JSON, YAML)
LIST_TYPES: Final = (JSON, f"{JSON};stream=watch", YAML)
CUSTOM_BODY_TYPES: Final = (JSON, YAML)
BUILTIN_BODY_TYPES: Final = ("*/*",)
_MERGE_TYPES: Final = ("application/json-patch+json", "application/merge-patch+json")
_APPLY: Final = "application/apply-patch+yaml"
_PATCH_TYPES: Final = (*_MERGE_TYPES, _APPLY)
# kubectl reads from here whether a kind takes strategic merge patches (apply/patcher.go).
_BUILTIN_PATCH_TYPES: Final = (*_MERGE_TYPES, "application/strategic-merge-patch+json", _APPLY)

PATCH_MODEL: Final = f"{META}Patch"
STATUS_MODEL: Final = f"{META}Status"
DELETE_OPTIONS_MODEL: Final = f"{META}DeleteOptions"
WATCH_EVENT_MODEL: Final = f"{META}WatchEvent"
RESOURCE_LIST_MODEL: Final = f"{META}APIResourceList"
VERSION_MODEL: Final = "io.k8s.apimachinery.pkg.version.Info"
# Stands where a model does for what is any text.
TEXT: Final = "text"

_QUERY_TYPES: Final = {
    "allowWatchBookmarks": "boolean",
    "command": "string",
    "container": "string",
    "continue": "string",
    "dryRun": "string",
    "fieldManager": "string",
    "fieldSelector": "string",
    "fieldValidation": "string",
    "follow": "boolean",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "ignoreStoreReadErrorWithClusterBreakingPotential": "boolean",
    "insecureSkipTLSVerifyBackend": "boolean",
    "labelSelector": "string",
    "limit": "integer",
    "limitBytes": "integer",
    "orphanDependents": "boolean",
    "path": "string",
    "ports": "integer",
    "pretty": "string",
    "previous": "boolean",
    "propagationPolicy": "string",
    "resourceVersion": "string",
    "resourceVersionMatch": "string",
    "sendInitialEvents": "boolean",
    "shardSelector": "string",
    "sinceSeconds": "integer",
    "stderr": "boolean",
    "stdin": "boolean",
    "stdout": "boolean",
    "stream": "string",
    "tailLines": "integer",
    "timeoutSeconds": "integer",
    "timestamps": "boolean",
    "tty": "boolean",
    "watch": "boolean",
}
# Two of these (ignoreStoreRead…, shardSelector) upstream heeds only where an alpha feature is on, which here is nowhere.
_LIST: Final = (
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
)
_WATCH: Final = ("allowWatchBookmarks", "watch")
_DELETE: Final = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
_WRITE: Final = ("dryRun", "fieldManager", "fieldValidation")
_LOG: Final = (
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
)
# What connecting takes, by the kind of its options, which have no schema.
_CONNECT: Final = {
    "NodeProxyOptions": ("path",),
    "PodAttachOptions": ("container", "stderr", "stdin", "stdout", "tty"),
    "PodExecOptions": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "PodPortForwardOptions": ("ports",),
    "PodProxyOptions": ("path",),
    "ServiceProxyOptions": ("path",),
}
# Whatever a proxy is told it passes on; discovery has no verbs for the last two.
_PROXIED: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_DEPRECATED: Final = "deprecated: use the 'watch' parameter with a list operation instead"
_METHOD_OF_VERB: Final = {
    "get": "get",
    "create": "post",
    "update": "put",
    "patch": "patch",
    "delete": "delete",
}
_WORD_OF_METHOD: Final = {
    "get": "read",
    "put": "replace",
    "post": "create",
    "patch": "patch",
    "delete": "delete",
}
_MEANINGS: Final = {200: "OK", 201: "Created", 202: "Accepted"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """`where` is `query` or `path`."""

    name: str
    where: str
    type: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. Models are names of definitions, or TEXT; None: any object. `action` "" is not told.

    `taken`: the media types of bodies that v2 tells of operations without one, too.
    """

    method: str
    id: str
    tag: str
    description: str
    action: str
    gvk: tuple[str, str, str] | None
    parameters: tuple[Parameter, ...]
    answer: str | None
    statuses: tuple[int, ...] = (200,)
    answer_types: tuple[str, ...] = ANSWER_TYPES
    body: str | None = None
    body_types: tuple[str, ...] = ()
    body_required: bool = True
    taken: tuple[str, ...] = ()

    def responses(self) -> Iterator[tuple[int, str]]:
        """The codes of success and what they are called."""
        for status in self.statuses:
            yield status, _MEANINGS[status]


@dataclass(frozen=True, slots=True)
class Path:
    """A path with its operations. `parameters` are those that all of them take."""

    path: str
    parameters: tuple[Parameter, ...]
    operations: tuple[Operation, ...]


def paths_of(served: Served, definitions: Definitions) -> list[Path]:
    """All paths of a resource at one version, subresources included."""
    return list(_Resource(served, definitions).paths())


@cache
def resources_path(group: str, version: str) -> Path:
    """`/apis/<group>/<version>/`, as upstream tells it of its own groups: so many, and no tenant adds to them."""
    prefix, tag = _names(group, version)
    return _read(
        base_path(group, version),
        f"get{prefix}APIResources",
        tag,
        "get available resources",
        RESOURCE_LIST_MODEL,
    )


@cache
def group_path(group: str) -> Path:
    """`/apis/<group>/`, of upstream's own groups, too."""
    prefix, tag = _words(group)
    return _read(
        f"/apis/{group}", f"get{prefix}APIGroup", tag, "get information of a group", f"{META}APIGroup"
    )


@cache
def groups_path() -> Path:
    """`/apis/`."""
    return _read("/apis", "getAPIVersions", "apis", "get available API versions", f"{META}APIGroupList")


@cache
def core_path() -> Path:
    """`/api/`."""
    return _read("/api", "getCoreAPIVersions", "core", "get available API versions", f"{META}APIVersions")


@cache
def version_path() -> Path:
    """`/version/`."""
    description = "get the version information for this server"
    return _read("/version", "getCodeVersion", "version", description, VERSION_MODEL, (JSON,))


def _read(
    path: str, identifier: str, tag: str, description: str, model: str, types: tuple[str, ...] = ANSWER_TYPES
) -> Path:
    taken = types if types == (JSON,) else (*types, PROTOBUF)
    operation = Operation(
        "get", identifier, tag, description, "", None, (), model, answer_types=types, taken=taken
    )
    return Path(f"{path}/", (), (operation,))


def base_path(group: str, version: str) -> str:
    """The path of a group-version."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _names(group: str, version: str) -> tuple[str, str]:
    """`CoordinationV1` in operations' ids and `coordination_v1` as the tag (endpoints/openapi/openapi.go)."""
    prefix, tag = _words(group)
    return prefix + _identifier(version, True), f"{tag}_{version}"


def _words(group: str) -> tuple[str, str]:
    words = (group or "core").removesuffix(".k8s.io")
    return _identifier(words, True), _identifier(words, False)


def _identifier(text: str, capital: bool) -> str:
    told = ""
    for char in text:
        if char.isalpha() or char == "_" or (told and char.isdigit()):
            told += char.upper() if capital else char
            capital = False
        else:
            capital = True
    return told


def _article(kind: str) -> str:
    """` a `, ` an ` or ` `, as upstream puts it before a kind (installer.go, GetArticleForNoun)."""
    if kind.endswith("s") and not kind.endswith("ss"):
        return " "
    return " an " if kind[0].lower() in "aeiou" else " a "


def _query(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "query", _QUERY_TYPES[name]) for name in names)


class _Resource:
    def __init__(self, served: Served, definitions: Definitions) -> None:
        self.served = served
        self.definitions = definitions
        self.kind = served.kind
        self.builtin = served.resource.builtin
        self.model, self.list_model = kind_names(served, definitions)
        self.group_words, self.tag = _names(served.group, served.version.name)
        self.gvk = (served.group, served.version.name, served.kind)
        self.scope = "Namespaced" if served.resource.namespaced else ""
        base = base_path(served.group, served.version.name)
        self.everywhere = f"{base}/{served.plural}"
        self.collection = (
            f"{base}/namespaces/{{namespace}}/{served.plural}" if self.scope else self.everywhere
        )
        self.body_types = BUILTIN_BODY_TYPES if self.builtin else CUSTOM_BODY_TYPES
        self.patch_types = _BUILTIN_PATCH_TYPES if self.builtin else _PATCH_TYPES

    def paths(self) -> Iterator[Path]:
        verbs = self.served.resource.verbs
        if self.scope and "list" in verbs:
            yield self.path(self.everywhere, [self.list_operation(f"{self.kind}ForAllNamespaces")])
        yield self.path(self.collection, list(self.collection_operations()))
        item = f"{self.collection}/{{name}}"
        parts = [verb for verb in ("get", "update", "delete", "patch") if verb in verbs]
        yield self.path(item, [self.item_operation(verb) for verb in parts])
        if self.served.version.status:
            yield self.part("status", ("get", "update", "patch"))
        if self.served.version.scale is not None:
            yield self.part("scale", ("get", "update", "patch"), SCALE, ("autoscaling", "v1", "Scale"))
        for name in self.served.resource.parts:
            yield self.part(name, ("update",) if name == "finalize" else ("get", "update", "patch"))
        for one in self.served.resource.subresources.values():
            yield from self.computed(one)
        if self.builtin and "watch" in verbs:
            yield from self.old_watches()

    def computed(self, one: Subresource) -> Iterator[Path]:
        """A subresource with a function of its own."""
        path = f"{self.collection}/{{name}}/{one.name}"
        gvk = (one.group, one.version, one.kind)
        if not one.connects:
            yield self.part(one.name, one.verbs, self.definitions.name(*gvk), gvk)
        elif one.kind == self.kind:
            yield self.path(path, [self.log()])
        else:
            methods = (
                _PROXIED
                if one.has_paths
                else tuple(_METHOD_OF_VERB[verb] for verb in sorted(one.verbs, reverse=True))
            )
            below = ("", "/{path}") if one.has_paths else ("",)
            for rest in below:
                operations = [self.connection(one, method, bool(rest)) for method in methods]
                yield self.path(path + rest, operations, of=one.kind, pretty=False)

    def log(self) -> Operation:
        """What is no object and is read all the same."""
        operation = self.replaceable("log", "get", TEXT, self.gvk)
        types = ("text/plain", *ANSWER_TYPES)
        return replace(operation, parameters=_query(*_LOG), answer_types=types)

    def connection(self, one: Subresource, method: str, with_path: bool) -> Operation:
        of = self.scope + self.kind + one.name.capitalize()
        return self.operation(
            method,
            f"connect{self.group_words}{method.capitalize()}{of}{'WithPath' if with_path else ''}",
            f"connect {method.upper()} requests to {one.name} of {self.kind}",
            action="connect",
            parameters=_query(*_CONNECT[one.kind]),
            answer=TEXT,
            answer_types=("*/*",),
            gvk=(one.group, one.version, one.kind),
        )

    def old_watches(self) -> Iterator[Path]:
        """The paths of watches from before there was a parameter."""
        base = base_path(self.served.group, self.served.version.name)
        collection = self.collection.replace(base, f"{base}/watch", 1)
        whole = f"{base}/watch/{self.served.plural}"
        several = f"watch individual changes to a list of {self.kind}. {_DEPRECATED}."
        if self.scope:
            yield self.path(whole, [self.old_watch(f"{self.kind}ListForAllNamespaces", several)])
        yield self.path(collection, [self.old_watch(f"{self.scope}{self.kind}List", several)])
        one = (
            f"watch changes to an object of kind {self.kind}. {_DEPRECATED}, "
            "filtered to a single item with the 'fieldSelector' parameter."
        )
        yield self.path(f"{collection}/{{name}}", [self.old_watch(self.scope + self.kind, one, "watch")])

    def old_watch(self, name: str, description: str, action: str = "watchlist") -> Operation:
        return self.operation(
            "get",
            f"watch{self.group_words}{name}",
            description,
            action=action,
            parameters=_query(*_LIST, *_WATCH),
            answer=WATCH_EVENT_MODEL,
            answer_types=LIST_TYPES,
        )

    def path(self, path: str, operations: list[Operation], *, of: str = "", pretty: bool = True) -> Path:
        """`of`: the kind that the path's name is said to be of, where it is not the resource's own."""
        if not operations:
            return Path(path, (), ())
        common = set(operations[0].parameters).intersection(*(one.parameters for one in operations))
        own = [
            _with_parameters(one, [parameter for parameter in one.parameters if parameter not in common])
            for one in operations
        ]
        told = [*common, *(_query("pretty") if pretty else ()), *self.in_path(path, of or self.kind)]
        return Path(path, tuple(sorted(told, key=lambda one: (one.name, one.where))), tuple(own))

    def in_path(self, path: str, kind: str) -> Iterator[Parameter]:
        if "{namespace}" in path:
            yield Parameter(
                "namespace", "path", "string", "object name and auth scope, such as for teams and projects"
            )
        if "{name}" in path:
            yield Parameter("name", "path", "string", f"name of the {kind}")
        if "{path}" in path:
            yield Parameter("path", "path", "string", "path to the resource")

    def collection_operations(self) -> Iterator[Operation]:
        verbs = self.served.resource.verbs
        if "list" in verbs:
            yield self.list_operation(self.scope + self.kind)
        if "create" in verbs:
            yield self.operation(
                "post",
                f"create{self.group_words}{self.scope}{self.kind}",
                f"create{_article(self.kind)}{self.kind}",
                parameters=_query(*_WRITE),
                statuses=(200, 201, 202),
                body=self.model,
                body_types=self.body_types,
            )
        if "deletecollection" in verbs:
            taken = (*_LIST, *(_DELETE if self.builtin else _WATCH))
            yield self.operation(
                "delete",
                f"delete{self.group_words}Collection{self.scope}{self.kind}",
                f"delete collection of {self.kind}",
                action="deletecollection",
                parameters=_query(*taken),
                answer=STATUS_MODEL,
                body=DELETE_OPTIONS_MODEL if self.builtin else None,
                body_types=self.body_types if self.builtin else (),
                body_required=False,
            )

    def list_operation(self, name: str) -> Operation:
        watched = self.builtin and "watch" in self.served.resource.verbs
        words = "list or watch objects of kind" if watched else "list objects of kind"
        return self.operation(
            "get",
            f"list{self.group_words}{name}",
            f"{words} {self.kind}",
            action="list",
            parameters=_query(*_LIST, *_WATCH),
            answer=self.list_model,
            answer_types=LIST_TYPES if self.builtin else ANSWER_TYPES,
        )

    def item_operation(self, verb: str) -> Operation:
        if verb == "delete":
            return self.operation(
                "delete",
                f"delete{self.group_words}{self.scope}{self.kind}",
                f"delete{_article(self.kind)}{self.kind}",
                parameters=_query(*_DELETE),
                answer=self.model if self.served.resource.strategy.returns_deleted_object else STATUS_MODEL,
                statuses=(200, 202),
                body=DELETE_OPTIONS_MODEL,
                body_types=self.body_types,
                body_required=False,
            )
        return self.replaceable("", _METHOD_OF_VERB[verb], self.model, self.gvk)

    def part(
        self,
        name: str,
        verbs: tuple[str, ...],
        model: str | None = "",
        gvk: tuple[str, str, str] | None = None,
    ) -> Path:
        """A subresource. `model` "" is the kind's own."""
        if model == "":
            model = self.model
        # Upstream tells custom kinds' scale under the kind itself.
        told = gvk if gvk is not None and self.builtin else self.gvk
        operations = [
            self.replaceable(name, _METHOD_OF_VERB[verb], model, told)
            for verb in verbs
            if verb in _METHOD_OF_VERB
        ]
        return self.path(f"{self.collection}/{{name}}/{name}", operations, of=told[2])

    def replaceable(self, part: str, method: str, model: str | None, gvk: tuple[str, str, str]) -> Operation:
        word = _WORD_OF_METHOD[method]
        identifier = f"{word}{self.group_words}{self.scope}{self.kind}{part.capitalize()}"
        of = f" {part} of" if part else ""
        article = _article(self.kind) if word in ("create", "delete") else " the specified "
        description = f"{'partially update' if word == 'patch' else word}{of}{article}{self.kind}"
        if method == "get":
            taken = () if self.builtin else _query("resourceVersion")
            return self.operation(method, identifier, description, parameters=taken, answer=model, gvk=gvk)
        if method == "patch":
            return self.operation(
                method,
                identifier,
                description,
                parameters=_query(*_WRITE, "force"),
                answer=model,
                gvk=gvk,
                statuses=(200, 201) if self.builtin else (200,),
                body=PATCH_MODEL,
                body_types=self.patch_types,
            )
        return self.operation(
            method,
            identifier,
            description,
            parameters=_query(*_WRITE),
            answer=model,
            gvk=gvk,
            statuses=(200, 201, 202) if method == "post" else (200, 201),
            body=model,
            body_types=self.body_types,
        )

    def operation(
        self,
        method: str,
        identifier: str,
        description: str,
        *,
        parameters: tuple[Parameter, ...],
        action: str = "",
        answer: str | None = "",
        statuses: tuple[int, ...] = (200,),
        answer_types: tuple[str, ...] = ANSWER_TYPES,
        gvk: tuple[str, str, str] | None = None,
        body: str | None = None,
        body_types: tuple[str, ...] = (),
        body_required: bool = True,
    ) -> Operation:
        return Operation(
            method,
            identifier,
            self.tag,
            description,
            action or method,
            gvk or self.gvk,
            tuple(sorted(parameters, key=lambda one: one.name)),
            self.model if answer == "" else answer,
            statuses,
            answer_types,
            body,
            body_types,
            body_required,
            self.body_types,
        )


def _with_parameters(operation: Operation, parameters: list[Parameter]) -> Operation:
    return replace(operation, parameters=tuple(parameters))


def told_of(path: Path, definitions: Definitions) -> frozenset[str]:
    """The names of upstream's definitions that a path refers to."""
    named = {name for one in path.operations for name in (one.answer, one.body)}
    return frozenset(name for name in named if name is not None and name in definitions.source)


def told_beside(
    served: Served, definitions: Definitions, paths: list[Path], *, v2: bool
) -> Steps[tuple[Object, frozenset[str]]]:
    """The definitions that a resource brings itself (a custom kind and its list), and the names of upstream's it needs."""
    needed = frozenset[str]().union(*(told_of(path, definitions) for path in paths))
    named = {one.answer for path in paths for one in path.operations}
    own: Object = {}
    model, list_model = kind_names(served, definitions)
    if model not in definitions.source:
        own[model] = yield from custom_kind(served, v2=v2)
        needed |= {f"{META}ObjectMeta"} & definitions.source.keys()
    if list_model in named and list_model not in definitions.source:
        own[list_model] = custom_list(served, v2=v2)
        needed |= {f"{META}ListMeta"} & definitions.source.keys()
    return own, needed


def kubernetes_extensions(operation: Operation) -> Object:
    """What clients look at: the action, and the kind it is about."""
    told: Object = {}
    if operation.action:
        told["x-kubernetes-action"] = operation.action
    if operation.gvk is not None:
        group, version, kind = operation.gvk
        told["x-kubernetes-group-version-kind"] = {"group": group, "kind": kind, "version": version}
    return told
