"""The chart's whole life by an unmodified helm, in a logical cluster of our own server."""

from __future__ import annotations

import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterling.cli.serve import TOKEN_CHARACTERS_MIN
from tests.deploy.charts import CHART, SCENARIOS, Helm, Rendered, flag, parsed
from tests.e2e.clusters import Cluster

pytestmark = [pytest.mark.helm, pytest.mark.kubectl]

EVERYTHING = [
    *flag("externalUrl", "https://api.example.com"),
    *flag("tls.mode", "certManager"),
    *flag("ingress.enabled", True),
    *flag(
        "gateway",
        {"parentRefs": [{"name": "g"}], "tlsRoute": {"enabled": True}, "httpRoute": {"enabled": True}},
    ),
    *flag("networkPolicy.enabled", True),
    *flag("metrics.serviceMonitor.enabled", True),
    *flag(
        "metrics.prometheusRule",
        {"enabled": True, "groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up == 0"}]}]},
    ),
    *flag("backup", {"enabled": True, "volume": {"emptyDir": {}}}),
]
SHARED = flag("store", {"type": "postgres", "url": "postgres://u@db/clusterling"})


@dataclass(frozen=True, slots=True)
class There:
    """helm in a namespace of the host cluster."""

    host: Cluster
    helm: Helm
    namespace: str

    def __call__(self, *arguments: str | Path, code: int | None = 0) -> str:
        return self.helm(
            *arguments,
            "--namespace",
            self.namespace,
            code=code,
            env={"KUBECONFIG": str(self.host.kubeconfig)},
        )

    def objects(self, *kinds: str) -> list[dict[str, Any]]:
        text = self.host.kubectl("-n", self.namespace, "get", ",".join(kinds), "-o", "json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def names(self, *kinds: str) -> set[str]:
        return {f"{one['kind']}/{one['metadata']['name']}" for one in self.objects(*kinds)}

    def value(self, what: str, path: str) -> str:
        return self.host.kubectl("-n", self.namespace, "get", what, "-o", f"jsonpath={{{path}}}")


@pytest.fixture
def there(host: Cluster, helm: Helm, request: pytest.FixtureRequest) -> There:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[-40:].strip("-")
    host.kubectl("create", "namespace", name)
    return There(host, helm, name)


KINDS = [
    "deployments",
    "statefulsets",
    "services",
    "serviceaccounts",
    "configmaps",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "networkpolicies",
    "cronjobs",
    "ingresses",
    "tlsroutes",
    "httproutes",
    "backendtlspolicies",
    "issuers",
    "certificates",
    "servicemonitors",
    "prometheusrules",
]


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_it_is_installed_upgraded_rolled_back_and_uninstalled(how: str, there: There) -> None:
    before = there.names(*KINDS)
    assert "STATUS: deployed" in there("install", "lc", CHART, how, *SHARED, *EVERYTHING)
    made = there.names(*KINDS) - before
    assert len(made) >= 18
    assert {kind.partition("/")[0] for kind in made} >= {
        "Deployment",
        "TLSRoute",
        "Certificate",
        "ServiceMonitor",
    }
    token = there.value("secret/lc-clusterling-admin", ".data.token")
    assert len(base64.b64decode(token)) >= TOKEN_CHARACTERS_MIN

    again = [*SHARED, *EVERYTHING, *flag("replicas", 5), *flag("clusters", [{"name": "team-a"}])]
    there("upgrade", "lc", CHART, how, *again, *flag("ingress.enabled", False))
    assert there.value("deployment/lc-clusterling", ".spec.replicas") == "5"
    assert "name: team-a" in there.value("configmap/lc-clusterling-clusters", ".data.clusters\\.yaml")
    assert made - there.names(*KINDS) == {"Ingress/lc-clusterling"}
    assert there.value("secret/lc-clusterling-admin", ".data.token") == token, "it is kept over upgrades"

    there("rollback", "lc", "1", how)
    assert there.value("deployment/lc-clusterling", ".spec.replicas") == "2"
    assert there.names(*KINDS) - before == made
    assert there.value("secret/lc-clusterling-admin", ".data.token") == token
    history = json.loads(there("history", "lc", "-o", "json"))
    assert [one["status"] for one in history] == ["superseded", "superseded", "deployed"]

    there("uninstall", "lc")
    assert there.names(*KINDS) == before
    assert there.objects("secrets") == []


def test_a_store_on_a_volume_leaves_the_volume_behind_alone(there: There) -> None:
    there("install", "lc", CHART)
    retention = there.value(
        "statefulset/lc-clusterling", ".spec.persistentVolumeClaimRetentionPolicy.whenDeleted"
    )
    assert retention == "Retain"
    there("uninstall", "lc")
    assert there.objects("statefulsets", "services", "secrets") == []


def test_installing_without_hooks_is_the_same(there: There) -> None:
    def manifest(*arguments: str) -> str:
        fixed = flag("adminToken.existingSecret", "mine")
        there("install", "lc", CHART, *SHARED, *EVERYTHING, *fixed, *arguments)
        text = there("get", "manifest", "lc")
        there("uninstall", "lc")
        return text

    assert manifest() == manifest("--no-hooks")


def test_the_manifest_that_helm_remembers_is_what_is_there(there: There) -> None:
    there("install", "lc", CHART, *SHARED, *EVERYTHING)
    told = {
        f"{one['kind']}/{one['metadata']['name']}"
        for one in parsed(there("get", "manifest", "lc"))
        if one["kind"] != "Secret"
    }
    assert told <= there.names(*KINDS)
    assert "clusterling is at" in there("get", "notes", "lc").lower().replace(" 0.1.0", "")
    # Nothing that the server defaults or orders otherwise is a difference to the next apply.
    versions = {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in there.objects(*KINDS)}
    there("upgrade", "lc", CHART, *SHARED, *EVERYTHING)
    assert {
        one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in there.objects(*KINDS)
    } == versions
    there("uninstall", "lc")


@pytest.fixture(scope="module")
def rehearsal(host: Cluster) -> Cluster:
    """Has what the pods of `helm test` must find, which a dry run does not leave behind."""
    host.kubectl("create", "namespace", "there")
    for account in ("r-clusterling", "lc"):
        host.kubectl("-n", "there", "create", "serviceaccount", account)
    return host


@pytest.mark.parametrize("values", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_the_server_takes_every_scenario(values: Path, rehearsal: Cluster, rendered: Rendered) -> None:
    """By dry run on the server, strictly: no field is unknown, no value is refused, nothing is warned of."""
    out, warned = rehearsal.kubectl_both(
        *(
            "apply",
            "-n",
            "there",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
        ),
        *("-f", "-"),
        stdin=rendered.text(values),
    )
    assert out.count(" serverside-applied (server dry run)") == len(rendered.manifests(values))
    assert "Warning" not in warned


def test_a_dry_run_on_the_server_changes_nothing(there: There) -> None:
    said = there("install", "lc", CHART, "--dry-run=server", *SHARED, *EVERYTHING)
    assert "STATUS: pending-install" in said
    assert "kind: Deployment" in said
    assert there.objects("deployments", "secrets") == []


def test_a_field_that_is_no_deployments_is_refused_by_the_server(there: There, tmp_path: Path) -> None:
    chart = tmp_path / "clusterling"
    shutil.copytree(CHART, chart)
    template = chart / "templates" / "deployment.yaml"
    template.write_text(template.read_text().replace("revisionHistoryLimit:", "revisionHistoryLimits:"))
    assert "revisionHistoryLimits" in there("install", "lc", chart, *SHARED, code=1)


def test_helms_test_waits_for_its_pod(there: There) -> None:
    """Here nobody runs pods: the test is the kubelet that says how the pod went."""
    there("install", "lc", CHART, *SHARED)
    for phase, code in (("Succeeded", 0), ("Failed", 1)):
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(there, "test", "lc", "--timeout", "60s", code=code)
            there.host.kubectl(
                *("wait", "-n", there.namespace, "--for=create", "pod/lc-clusterling-test", "--timeout=50s")
            )
            there.host.kubectl(
                *("patch", "-n", there.namespace, "pod", "lc-clusterling-test", "--subresource=status"),
                *("-p", json.dumps({"status": {"phase": phase}})),
            )
            assert f"Phase:          {phase}" in said.result()
    there("uninstall", "lc")
