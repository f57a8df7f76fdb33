"""A small operator, as kopf's users write them: it keeps a ConfigMap for each Greeting and reports into its status."""

from __future__ import annotations

from typing import Any

import kopf
import kubernetes.client


def core() -> Any:
    return kubernetes.client.CoreV1Api()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.level = 20  # INFO and above become Events
    settings.persistence.finalizer = "example.com/greeter"


@kopf.on.create("example.com", "v1", "greetings")
def create(*, spec: kopf.Spec, name: str, namespace: str | None, body: kopf.Body, **_: Any) -> dict[str, str]:
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-text", "labels": {"greeting": name}},
        "data": {"text": f"Hello, {spec['whom']}!"},
    }
    kopf.adopt(child, owner=body)
    core().create_namespaced_config_map(namespace, child)
    kopf.info(body, reason="Greeted", message=f"said hello to {spec['whom']}")
    return {"configMap": f"{name}-text"}


@kopf.on.update("example.com", "v1", "greetings", field="spec.whom")
def update(*, new: Any, name: str, namespace: str | None, **_: Any) -> None:
    change = {"data": {"text": f"Hello, {new}!"}}
    core().patch_namespaced_config_map(f"{name}-text", namespace, change)


@kopf.on.delete("example.com", "v1", "greetings")
def delete(*, name: str, namespace: str | None, **_: Any) -> None:
    farewell = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-farewell"}}
    core().create_namespaced_config_map(namespace, farewell)


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_via_client(**kwargs)
