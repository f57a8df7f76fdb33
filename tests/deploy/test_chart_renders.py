"""What the chart renders, in every scenario of its ci directory: valid, strict, and of the restricted kind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from yamllint import config, linter  # type: ignore[import-untyped]

from clusterling.tenancy.limits import DEFAULTS
from clusterling.version import __version__
from tests.deploy.charts import CHART, SCENARIOS, Helm, Rendered, call, flag, only, parsed, pod_specs, tool
from tests.deploy.schemas import LOCATION
from tools import chart_docs

pytestmark = pytest.mark.helm

scenarios = pytest.mark.parametrize(
    "values", SCENARIOS, ids=lambda path: path.name.removesuffix("-values.yaml")
)

POSTGRES = flag("store", {"type": "postgres", "url": "postgres://u@db/clusterling"})


@scenarios
def test_a_scenario_passes_lint(values: Path, helm: Helm) -> None:
    said = helm("lint", "--strict", CHART, "-f", values)
    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert "[WARNING]" not in said
    assert "[ERROR]" not in said


def _conform(kinds: Path, text: str, code: int | None = 0) -> list[dict[str, Any]]:
    said = call(
        *(tool("kubeconform"), "-strict", "-output", "json", "-verbose"),
        *("-schema-location", f"{kinds}/{LOCATION}"),
        stdin=text,
        code=code,
    )
    resources: list[dict[str, Any]] = json.loads(said)["resources"]
    return resources


def test_every_object_of_every_scenario_is_valid_by_our_own_openapi(
    rendered: Rendered, kind_schemas: Path
) -> None:
    for values in SCENARIOS:
        text = rendered.text(values)
        found = _conform(kind_schemas, text)
        assert len(found) == len(list(parsed(text)))
        assert {one["status"] for one in found} == {"statusValid"}, (values.name, found)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("replicas: 3", "replicas: three", "want integer"),
        ("revisionHistoryLimit:", "revisionHistoryLimits:", "revisionHistoryLimits"),
        ("name: https", "nam: https", "nam"),
    ],
)
def test_a_wrong_type_and_an_unknown_field_would_be_found(
    before: str, after: str, complaint: str, helm: Helm, kind_schemas: Path
) -> None:
    text = helm.template("-f", CHART / "ci" / "postgres-values.yaml")
    assert before in text
    invalid = [
        one
        for one in _conform(kind_schemas, text.replace(before, after), code=1)
        if one["status"] != "statusValid"
    ]
    assert {one["status"] for one in invalid} == {"statusInvalid"}
    assert all(complaint in json.dumps(one) for one in invalid)


@scenarios
def test_every_pod_passes_the_restricted_standard(values: Path, rendered: Rendered) -> None:
    for what, spec in pod_specs(rendered.manifests(values)):
        assert spec["securityContext"]["runAsNonRoot"] is True, what
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, what
        assert spec["automountServiceAccountToken"] is False, what
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}, what
        assert not any("hostPath" in volume for volume in spec.get("volumes", ())), what
        ours = [one for one in _containers(spec) if not one["image"].startswith("busybox")]
        assert ours, what
        for one in ours:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, what
            assert one["resources"]["requests"].keys() == {"cpu", "memory", "ephemeral-storage"}, what
            assert one["resources"]["limits"].keys() >= {"memory"}, what


def _containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


@scenarios
def test_what_a_container_mounts_is_a_volume_of_its_pod(values: Path, rendered: Rendered) -> None:
    manifests = rendered.manifests(values)
    for what, spec in pod_specs(manifests):
        claimed = {
            claim["metadata"]["name"]
            for one in manifests
            if one["kind"] == "StatefulSet" and what == f"StatefulSet/{one['metadata']['name']}"
            for claim in one["spec"].get("volumeClaimTemplates", ())
        }
        volumes = claimed | {volume["name"] for volume in spec.get("volumes", ())}
        mounted = {mount["name"] for one in _containers(spec) for mount in one.get("volumeMounts", ())}
        assert mounted <= volumes, what
        assert volumes <= mounted, f"{what} has a volume that nobody mounts"


@scenarios
def test_names_fit_and_labels_tell_the_release(values: Path, helm: Helm) -> None:
    text = helm.template("-f", values, release="a-release-with-a-name-that-is-as-long-as-helm-allows1")
    for one in parsed(text):
        name = one["metadata"]["name"]
        assert len(name) <= (52 if one["kind"] == "CronJob" else 63), name
        if not name.endswith(("-more", "-text")):
            labels = one["metadata"]["labels"]
            assert labels["app.kubernetes.io/managed-by"] == "Helm", name
            assert labels["app.kubernetes.io/version"] == __version__, name


@scenarios
def test_what_selects_pods_selects_those_of_the_server_alone(values: Path, rendered: Rendered) -> None:
    manifests = rendered.manifests(values)
    workload = next(one for one in manifests if one["kind"] in ("Deployment", "StatefulSet"))
    labels = workload["spec"]["template"]["metadata"]["labels"].items()
    others = [
        one["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items()
        for one in manifests
        if one["kind"] == "CronJob"
    ] + [one["metadata"]["labels"].items() for one in manifests if one["kind"] == "Pod"]
    for one in manifests:
        if one["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget", "PodMonitor"):
            selector = one["spec"]["selector"]["matchLabels"].items()
        elif one["kind"] == "Service":
            selector = one["spec"]["selector"].items()
        else:
            continue
        assert selector <= labels, one["kind"]
        assert not any(selector <= other for other in others), one["kind"]


@scenarios
def test_nothing_is_a_hook_but_the_test(values: Path, helm: Helm, rendered: Rendered) -> None:
    hooks = [
        (one["kind"], one["metadata"]["annotations"]["helm.sh/hook"])
        for one in rendered.manifests(values)
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    ]
    assert hooks == [("Pod", "test")]


def test_no_secret_is_in_arguments_or_config_maps(rendered: Rendered) -> None:
    for values in SCENARIOS:
        manifests = rendered.manifests(values)
        for one in manifests:
            if one["kind"] == "Secret":
                assert one["metadata"]["name"].endswith("-admin")
                assert one["data"].keys() == {"token"}
        for what, spec in pod_specs(manifests):
            for container in _containers(spec):
                given = json.dumps([container.get("args"), container.get("command")])
                assert not re.search(r"clst_|://[^/@\"]*:[^/@\"]*@", given), what


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (flag("replica", 3), "additional properties 'replica' not allowed"),
        (flag("store.typ", "etcd"), "additional properties 'typ' not allowed"),
        (flag("store.type", "mysql"), "'sqlite', 'postgres', 'etcd'"),
        (flag("replicas", "three"), "at '/replicas': got string, want integer"),
        (
            flag("externalUrl", "api.example.com"),
            "at '/externalUrl': 'api.example.com' does not match pattern",
        ),
        (flag("image.digest", "1234"), "at '/image/digest'"),
        (flag("clusters", [{"name": "Team A"}]), "at '/clusters/0/name'"),
        (flag("clusters", [{"name": "a", "quota": {}}]), "additional properties 'quota' not allowed"),
        (flag("defaultQuota", {"hard": {"objects": [1]}}), "at '/defaultQuota/hard/objects'"),
        (flag("limits", {"tenant.list": 5}), "additional properties 'tenant.list' not allowed"),
        (flag("limits", {"watches": -1}), "at '/limits/watches'"),
        (flag("trustedProxies", ["a load balancer"]), "at '/trustedProxies/0'"),
        (flag("proxyProtocol", True), "name them"),
        (flag("tracing.sampling", 2), "at '/tracing/sampling'"),
        (flag("tracing.sampling", "some"), "at '/tracing/sampling'"),
        (flag("podLabels", {"a": 1}), "at '/podLabels/a': got number, want string"),
        (flag("store.type", "postgres"), "say where it is with store.url"),
        (flag("store.url", "postgres://u@db/c"), "set store.type"),
        (flag("store", {"type": "etcd", "url": "postgres://u@db/c"}), "store.url is another's"),
        (flag("store", {"type": "postgres", "url": "postgres://u:pw@db/c"}), "has a password in it"),
        (flag("store", {"type": "etcd", "url": "etcd://e", "urlKey": "u"}), "exclude each other"),
        (flag("store", {"type": "etcd", "url": "etcd://e", "caKey": "ca"}), "which is not named"),
        (flag("store", {"type": "etcd", "url": "etcd://e", "existingSecret": "s"}), "none of its keys"),
        (
            flag("store", {"type": "etcd", "url": "etcd://e", "existingSecret": "s", "certKey": "c"}),
            "go together",
        ),
        (flag("autoscaling.enabled", True), "needs a store that pods can share"),
        ([*POSTGRES, *flag("autoscaling", {"enabled": True, "minReplicas": 11})], "is more than maxReplicas"),
        (
            [*POSTGRES, *flag("autoscaling", {"enabled": True, "targetCPUUtilizationPercentage": 0})],
            "nothing to go by",
        ),
        (flag("tls.mode", "existingSecret"), "name it with tls.existingSecret"),
        (flag("tls.existingSecret", "x"), "set tls.mode"),
        (flag("shutdown.gracePeriodSeconds", 15), "killed before it has stopped"),
        (flag("gateway.tlsRoute.enabled", True), "gateway.parentRefs"),
        (
            [*flag("gateway.httpRoute.enabled", True), *flag("gateway.parentRefs", [{"name": "g"}])],
            "must know the servers' CA",
        ),
        (
            [*flag("metrics.serviceMonitor.enabled", True), *flag("metrics.podMonitor.enabled", True)],
            "enable one",
        ),
        (flag("backup.enabled", True), "backup.volume says where"),
        (
            [
                *flag("backup", {"enabled": True, "volume": {"emptyDir": {}}}),
                *flag("store.sqlite.persistence", False),
            ],
            "needs store.sqlite.persistence",
        ),
    ],
)
def test_values_that_cannot_work_are_refused_with_a_reason(
    arguments: list[str], complaint: str, helm: Helm
) -> None:
    assert complaint in helm("template", "r", CHART, *arguments, code=1)


def test_limits_are_called_as_servers_call_them() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    [pattern] = schema["properties"]["limits"]["patternProperties"]
    assert pattern == f"^({'|'.join(name.replace('.', '[.]') for name in DEFAULTS)})$"


def test_servers_have_their_own_limits_proxies_and_traces_unless_others_are_said(helm: Helm) -> None:
    for more in ([], flag("tracing.sampling", None)):
        [(_, spec)] = pod_specs(helm.manifests(*more, "--show-only", "templates/statefulset.yaml"))
        names = {argument.partition("=")[0] for argument in spec["containers"][0]["args"]}
        assert not names & {
            *("--limits", "--trusted-proxies", "--proxy-protocol"),
            *("--tracing-endpoint", "--tracing-sampling"),
        }


def test_every_value_is_accepted_as_a_charts_dependency_gets_it(helm: Helm) -> None:
    assert helm.manifests(*flag("global", {"anything": {"of": "a parent's"}}))


def test_the_same_values_render_the_same_but_for_a_token_that_is_made(helm: Helm) -> None:
    fixed = flag("adminToken.existingSecret", "mine")
    assert helm.template(*fixed) == helm.template(*fixed)
    assert only(helm.manifests(), "Secret") != only(helm.manifests(), "Secret")


def test_a_store_on_one_volume_has_one_pod_and_one_in_common_has_many(helm: Helm) -> None:
    alone = helm.manifests(*flag("replicas", 5))
    assert only(alone, "StatefulSet")["spec"]["replicas"] == 1
    assert not any(one["kind"] in ("Deployment", "PodDisruptionBudget") for one in alone)
    many = helm.manifests(*POSTGRES, *flag("replicas", 5))
    assert only(many, "Deployment")["spec"]["replicas"] == 5
    assert only(many, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 1,
        "maxUnavailable": 0,
    }
    assert not any(one["kind"] == "StatefulSet" for one in many)


def test_alerts_and_dashboards_are_taken_up_as_files_without_templating(helm: Helm, tmp_path: Path) -> None:
    chart = tmp_path / "clusterling"
    shutil.copytree(CHART, chart)
    alerts = {
        "groups": [
            {"name": "g", "rules": [{"alert": "A", "expr": "up", "annotations": {"d": "{{ $labels.x }}"}}]}
        ]
    }
    (chart / "files" / "alerts.yaml").write_text(yaml.safe_dump(alerts))
    shutil.rmtree(chart / "files" / "dashboards", ignore_errors=True)
    (chart / "files" / "dashboards").mkdir()
    (chart / "files" / "dashboards" / "Fleet.json").write_text('{"title": "{{ not a template }}"}\n')
    made = helm.manifests("-f", CHART / "ci" / "monitoring-values.yaml", chart=chart)
    assert [group["name"] for group in only(made, "PrometheusRule")["spec"]["groups"]] == ["g", "mine"]
    assert only(made, "PrometheusRule")["spec"]["groups"][:1] == alerts["groups"]
    (dashboard,) = (one for one in made if one["metadata"]["name"].endswith("-dashboard-fleet"))
    assert dashboard["data"] == {"Fleet.json": '{"title": "{{ not a template }}"}\n'}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboard["metadata"]["annotations"] == {"grafana_folder": "Clusterling"}


def test_the_schema_and_the_reference_are_those_of_values_yaml() -> None:
    for path, text in chart_docs.generated(CHART).items():
        assert path.read_text() == text, f"{path.name} is stale: run `make chart`"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\n", "a has no description"),
        ("# -- What.\na: []\n", "say what may be in this list"),
        ("a: {}\n", "say what may be in this map"),
        ("a:\n  b: 1\n", "a.b has no description"),
        ("- 1\n", "must be a map"),
    ],
)
def test_a_value_that_nobody_explains_has_no_reference(text: str, complaint: str) -> None:
    with pytest.raises(chart_docs.ValuesError, match=complaint):
        chart_docs.read(text)


def test_the_chart_is_of_the_version_that_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert f"ARG VERSION={__version__}\n" in (CHART.parent.parent / "image" / "Containerfile").read_text()


def test_there_are_as_many_scenarios_as_there_are_ways() -> None:
    assert len(SCENARIOS) >= 12


def test_the_suites_of_helm_unittest_pass(helm: Helm) -> None:
    said = call(tool("helm-unittest"), "--strict", CHART, env={"HOME": str(helm.home)})
    assert re.search(r"Tests: +\d+ passed, \d+ total", said), said


def test_yaml_is_in_order(rendered: Rendered, tmp_path: Path) -> None:
    """yamllint over what people edit, and over what is rendered (its line breaks apart, which are Helm's)."""
    rules = config.YamlLintConfig(
        "extends: default\n"
        "rules: {line-length: disable, document-start: disable, braces: {max-spaces-inside: 1}, brackets: disable,"
        " comments: {min-spaces-from-content: 1}, truthy: {check-keys: false}}\n"
    )
    sources = [
        CHART / "values.yaml",
        CHART / "Chart.yaml",
        *SCENARIOS,
        *sorted((CHART / "tests").glob("*.yaml")),
    ]
    problems = [f"{path.name}: {one}" for path in sources for one in linter.run(path.read_text(), rules)]
    assert not problems
    loose = config.YamlLintConfig(
        "rules: {key-duplicates: enable, new-lines: enable, hyphens: enable, colons: enable}\n"
    )
    for values in SCENARIOS:
        assert not [str(one) for one in linter.run(rendered.text(values), loose)], values.name
