"""docs/reference/{config,errors,api}.md tell of all settings, errors and kinds, and of no others."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache

from clusterling.machinery.errors import FieldErrorType
from clusterling.machinery.schema.node import Node
from clusterling.packs import OFFER, choose
from clusterling.registry.cluster import SUSPENDED
from clusterling.tenancy.cluster import root_pack
from tests.conftest import ROOT
from tools import config_docs

# `conformity` tells of other servers, and what they may answer.
SOURCES = [one for one in sorted((ROOT / "clusterling").rglob("*.py")) if "conformity" not in one.parts]
ERRORS = (ROOT / "docs/reference/errors.md").read_text()


def test_the_reference_of_settings_is_written_from_the_flags() -> None:
    assert config_docs.PAGE.read_text() == config_docs.page(), "`make config-docs` writes it anew"


def test_the_reference_names_each_variable_that_is_read() -> None:
    read = {
        name
        for source in SOURCES
        for name in re.findall(r'"((?:CLUSTERLING|OTEL)_[A-Z_]*[A-Z])"', source.read_text())
    }
    told = re.findall(r"`([A-Z_]+\*?)`", config_docs.page())
    assert [name for name in sorted(read) if not any(fnmatch(name, one) for one in told)] == []


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(source.read_text()) for source in SOURCES]


def nodes() -> Iterator[ast.AST]:
    for tree in trees():
        yield from ast.walk(tree)


def test_the_reference_tells_of_each_code_and_reason() -> None:
    made = {
        (code.value, reason.value)
        for node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"ApiError", "errors.ApiError"}
        if len(node.args) > 1
        for code, reason in [node.args[:2]]
        if isinstance(code, ast.Constant) and isinstance(reason, ast.Constant)
    }
    rows = re.findall(r"^\| (\d{3}) \| (?:`(\w+)`)? ?\|", ERRORS, re.MULTILINE)
    assert {(int(code), reason) for code, reason in rows} == made


def test_the_reference_tells_of_each_cause() -> None:
    made = {str(one) for one in FieldErrorType} | {SUSPENDED}
    for node in nodes():
        match node:
            case ast.Dict(keys=keys, values=values):
                names = [ast.unparse(key) for key in keys if key is not None]
                if set(names) <= {"'reason'", "'message'", "'field'"} and "'message'" in names:
                    made |= {
                        _text(value) for name, value in zip(names, values, strict=True) if name == "'reason'"
                    }
            case ast.Call(func=ast.Name("too_many"), args=[_, reason, _, _]):
                made.add(_text(reason))
    # How far an explained deletion got is no error.
    made -= {"", "Undecided"}
    _, section = ERRORS.split("\n## Causes\n")
    assert set(re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)) == made


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def test_the_reference_names_each_kind_and_each_field_of_a_logical_cluster() -> None:
    page = (ROOT / "docs/reference/api.md").read_text()
    plurals = {resource.names.plural for pack in choose("all") for resource in pack.resources}
    (cluster,) = root_pack(OFFER).resources
    fields = {name for version in cluster.versions for name in _fields(version.schema.node)}
    assert fields >= {"displayName", "objectCount"}
    words = set(re.findall(r"\w+", page))
    assert sorted((plurals | fields | cluster.subresources.keys()) - words) == []


def _fields(node: Node) -> Iterator[str]:
    for name, below in node.properties.items():
        yield name
        yield from _fields(below)
