"""What `make compare` tells kubectl leaves out no kind and no way of creating one."""

from __future__ import annotations

from clusterling.packs import choose
from tests.conformance import commands

# Made by others or never: asked for in commands.txt.
NOT_MADE = {"ComponentStatus", "CustomResourceDefinition"}
FORMS = (
    "clusterrole", "clusterrolebinding", "configmap", "cronjob", "deployment", "ingress", "job", "namespace",
    "poddisruptionbudget", "priorityclass", "quota", "role", "rolebinding", "secret docker-registry", "secret generic",
    "secret tls", "service clusterip", "service externalname", "service loadbalancer", "service nodeport", "serviceaccount",
    "token",
)  # fmt: skip


def _told() -> list[str]:
    return [command.line for theme in commands.themes() for command in theme.commands]


def test_an_object_of_every_kind_is_shown() -> None:
    shown = {
        command.kind
        for theme in commands.themes()
        for command in theme.commands
        if command.line.startswith("create -f -")
    }
    served = {one.names.kind for pack in choose("all") for one in pack.resources}
    assert served - shown - NOT_MADE == set()


def test_kubectl_creates_in_all_its_forms() -> None:
    told = _told()
    assert [form for form in FORMS if not any(line.startswith(f"create {form} ") for line in told)] == []
