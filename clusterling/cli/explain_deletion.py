"""`explain-deletion`: what keeps an object from being deleted, asked of the server and shown as a tree."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

import click
from typing_extensions import override

from clusterling.cli.clusters import server_options
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import emit, in_format, output_option, shows_colour
from clusterling.cli.remote import Admin
from clusterling.machinery.meta import Object

DISCOVERY: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;q=0.5"
)
FORMATS: Final = ("tree", "json", "yaml")

_CLUSTER: Final = re.compile(r"/clusters/[^/]+/*$")


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind as discovery tells it; `path` is that of its group and version."""

    path: str
    group: str
    plural: str
    names: frozenset[str]
    namespaced: bool


class _Cluster(Admin):
    """One logical cluster of the server that a kubeconfig names."""

    def __init__(self, admin: Admin, name: str) -> None:
        base = _CLUSTER.sub("", admin.target.server.rstrip("/"))
        target = replace(admin.target, server=f"{base}/clusters/{quote(name, safe='')}")
        super().__init__(target, admin.timeout_s)
        self._name = name

    def kinds(self) -> Iterator[_Kind]:
        """Everything that is served, the core group first."""
        for root in ("/api", "/apis"):
            for group in self._call("GET", root, accept=DISCOVERY).get("items") or ():
                yield from _kinds_of(group)

    def explanation(self, kind: _Kind, namespace: str, name: str) -> Object:
        place = f"/namespaces/{quote(namespace, safe='')}" if kind.namespaced else ""
        path = f"/explain/deletion{kind.path}{place}/{kind.plural}/{quote(name, safe='')}"
        return self._call("GET", path)

    @override
    def _refused(self, code: int, status: Object, about: str) -> CliError:
        message = str(status.get("message") or f"the server answered {code}")
        if code == 404:
            return CliError(message, "", Exit.NOT_FOUND)
        if code == 403:
            return CliError(message, f"see `clusterling list`, whether there is a cluster {self._name}")
        return super()._refused(code, status, about)


def _kinds_of(group: Object) -> Iterator[_Kind]:
    name = group["metadata"].get("name") or ""
    for version in group.get("versions") or ():
        path = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
        for one in version.get("resources") or ():
            known = (
                one["resource"],
                one.get("singularResource") or "",
                (one.get("responseKind") or {}).get("kind") or "",
                *(one.get("shortNames") or ()),
            )
            names = frozenset(text.lower() for text in known if text)
            yield _Kind(path, name, one["resource"], names, one.get("scope") == "Namespaced")


@click.command(
    "explain-deletion",
    epilog="""\b
Examples:
  clusterling explain-deletion team-a namespace stage
  clusterling explain-deletion team-a deployments.apps web -n shop
  clusterling explain-deletion team-a crd widgets.example.com -o json
  clusterling explain-deletion root logicalcluster team-a
""",
)
@click.argument("cluster")
@click.argument("kind")
@click.argument("name")
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="The namespace that the object is in."
)
@output_option(default="tree", formats=FORMATS)
@server_options
def explain_deletion_command(
    *,
    cluster: str,
    kind: str,
    name: str,
    namespace: str,
    output: str,
    admin: Admin,
) -> None:
    """Say what keeps the object KIND NAME of CLUSTER from being deleted.

    KIND is what kubectl takes: a plural, a singular, a short name, a kind, any of them with its group.
    """
    with closing(_Cluster(admin, cluster)) as served:
        found = _find(served.kinds(), kind)
        if found is None:
            raise CliError(
                f"cluster {cluster} serves no {kind}", "see `kubectl api-resources`", Exit.NOT_FOUND
            )
        told = served.explanation(found, namespace, name)
    if output == "tree":
        emit("".join(f"{line}\n" for line in tree(told, coloured=shows_colour(sys.stdout))))
    else:
        emit(in_format(told, output))


def _find(kinds: Iterator[_Kind], wanted: str) -> _Kind | None:
    """The first kind of that name, or of that name in that group."""
    name, _, group = wanted.lower().partition(".")
    for one in kinds:
        if name in one.names and group in ("", one.group):
            return one
    return None


# ---------------------------------------------------------------------- the tree


@dataclass(frozen=True, slots=True)
class _Node:
    text: str
    below: Sequence[_Node] = ()


def tree(told: Object, *, coloured: bool) -> Iterator[str]:
    """An explanation line by line."""
    root = told["object"]
    since = (
        f"is being deleted since {told['deletionTimestamp']}" if told["deleting"] else "is not being deleted"
    )
    yield _styled(f"{root['kind']} {_address(root)}", coloured) + f" {since}"
    nodes = [_blocker(one) for one in told["blockedBy"]]
    if not nodes and told["deleting"]:
        nodes = [_Node("nothing that is known here keeps it")]
    yield from _lines(nodes, "", coloured)
    if told.get("withheld"):
        yield f"there may be more that you may not read: {', '.join(told['withheld'])}"
    if told["truncated"]:
        yield "there is more than is told here"
    if told.get("controllers"):
        yield told["controllers"]


def _blocker(one: Object) -> _Node:
    below = [_example(example) for example in one.get("examples") or ()]
    for kind in one.get("kinds") or ():
        name = f"{kind['resource']}.{kind['group']}" if kind["group"] else kind["resource"]
        held = ", ".join(f"{finalizer} in {count}" for finalizer, count in sorted(kind["finalizers"].items()))
        text = f"{kind['count']} {name}" + (f", finalizers {held}" if held else "")
        examples = [_example(example) for example in kind["examples"]]
        if kind["count"] > len(examples):
            examples.append(_Node(f"and {kind['count'] - len(examples)} more"))
        below.append(_Node(text, examples))
    if one.get("examples") and one["count"] > len(one["examples"]):
        below.append(_Node(f"and {one['count'] - len(one['examples'])} more"))
    return _Node(one["message"], below)


def _example(one: Object) -> _Node:
    since = one.get("deletionTimestamp")
    text = f"{one['kind']} {_address(one)}" + (f", being deleted since {since}" if since else "")
    return _Node(text, [_blocker(blocker) for blocker in one.get("blockedBy") or ()])


def _address(obj: Object) -> str:
    return f"{obj['namespace']}/{obj['name']}" if obj.get("namespace") else str(obj["name"])


def _styled(text: str, coloured: bool) -> str:
    return click.style(text, bold=True) if coloured else text


def _lines(nodes: Sequence[_Node], indent: str, coloured: bool) -> Iterator[str]:
    for at, node in enumerate(nodes):
        branch, more = ("└─ ", "   ") if at == len(nodes) - 1 else ("├─ ", "│  ")
        # Names that tenants choose freely, as managers' are, may hold what a terminal would obey.
        text = "".join(one if one.isprintable() else "�" for one in node.text)
        leaf = coloured and not node.below
        yield f"{indent}{branch}{click.style(text, fg='yellow') if leaf else text}"
        yield from _lines(node.below, indent + more, coloured)
