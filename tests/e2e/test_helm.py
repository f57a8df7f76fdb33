"""helm installs, upgrades, rolls back and uninstalls a chart in a logical cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.clusters import Cluster, run

pytestmark = [pytest.mark.helm, pytest.mark.kubectl]

CHART = str(Path(__file__).with_name("chart"))


@pytest.mark.parametrize("how", ["--server-side=true", "--server-side=false"])
def test_a_chart_lives_its_whole_life(how: str, k: Cluster, helm_binary: Path) -> None:
    def helm(*arguments: str, code: int = 0) -> str:
        done = run([str(helm_binary), *arguments], env=k.env, code=code)
        return done.stderr if code else done.stdout

    def says() -> list[str]:
        text = k.kubectl("get", "configmap", "polly-greeting", "-o", "jsonpath={.data.text}")
        return [text, k.kubectl("get", "parrot", "polly", "-o", "jsonpath={.spec.says}")]

    assert "STATUS: deployed" in helm("install", "polly", CHART, how)
    assert says() == ["hello", "hello"]
    server = json.loads(k.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"]
    assert k.kubectl("get", "cm", "polly-about", "-o", "jsonpath={.data.kube}") == server
    assert "cannot reuse a name that is still in use" in helm("install", "polly", CHART, how, code=1)

    helm("upgrade", "polly", CHART, how, "--set", "greeting=goodbye")
    assert says() == ["goodbye", "goodbye"]
    helm("rollback", "polly", "1", how)
    assert says() == ["hello", "hello"]
    listed = json.loads(helm("list", "-o", "json"))
    assert [(release["name"], release["revision"], release["status"]) for release in listed] == [
        ("polly", "3", "deployed")
    ]
    types = k.kubectl("get", "secrets", "-l", "owner=helm", "-o", "jsonpath={.items[*].type}").split()
    assert types == ["helm.sh/release.v1"] * 3

    assert helm("uninstall", "polly") == 'release "polly" uninstalled\n'
    assert k.kubectl("get", "configmaps", "-l", "release=polly", "-o", "name") == ""
    assert k.kubectl("get", "parrots", "-o", "name") == ""
    assert k.kubectl("get", "secrets", "-l", "owner=helm", "-o", "name") == ""
    assert k.kubectl("get", "crd", "parrots.example.com", "-o", "name") != "", "helm leaves CRDs behind"
