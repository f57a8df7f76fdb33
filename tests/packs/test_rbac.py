from __future__ import annotations

import pytest

from clusterling.machinery.errors import ApiError
from tests.packs.conftest import Cluster, causes

_GROUP = "rbac.authorization.k8s.io"
_VIEW = {"kind": "ClusterRole", "name": "view"}


def _of(plural: str) -> str:
    return f"{_GROUP}/{plural}"


async def test_a_role_has_rules_even_where_it_has_none(cluster: Cluster) -> None:
    made = await cluster.create(_of("roles"), "a")
    assert made["rules"] is None
    assert "generation" not in made["metadata"]
    assert cluster.row(_of("roles"), made) == ["a", "2026-01-02T03:04:05Z"]


async def test_rules_are_about_resources_or_about_urls(cluster: Cluster) -> None:
    rules = [
        {"apiGroups": [""]},
        {"verbs": ["get"], "nonResourceURLs": ["/a"], "resources": ["x"]},
        {"verbs": ["get"]},
    ]
    error = await cluster.refused(_of("roles"), "b/", rules=rules)
    assert causes(error) == [
        ("metadata.name", "Invalid value: \"b/\": may not contain '/'"),
        ("rules[0].resources", "Required value: resource rules must supply at least one resource"),
        (
            "rules[1].nonResourceURLs",
            'Invalid value: ["/a"]: namespaced rules cannot apply to non-resource URLs',
        ),
        (
            "rules[1].nonResourceURLs",
            'Invalid value: ["/a"]: rules cannot apply to both regular resources and non-resource URLs',
        ),
        ("rules[2].apiGroups", "Required value: resource rules must supply at least one api group"),
        ("rules[2].resources", "Required value: resource rules must supply at least one resource"),
        ("rules[0].verbs", "Required value"),
    ]


async def test_an_aggregation_selects_by_labels(cluster: Cluster) -> None:
    error = await cluster.refused(_of("clusterroles"), "a", aggregationRule={})
    assert [field for field, _ in causes(error)] == ["aggregationRule.clusterRoleSelectors"]
    selectors = [
        {"matchLabels": {"a": "b c"}},
        {"matchExpressions": [{"key": "a", "operator": "In"}, {"key": "a", "operator": "Foo"}]},
        {"matchLabels": {"a": "b"}},
    ]
    error = await cluster.refused(
        _of("clusterroles"), "a", aggregationRule={"clusterRoleSelectors": selectors}
    )
    path = "aggregationRule.clusterRoleSelectors"
    assert [field for field, _ in causes(error)] == [
        f"{path}[0].matchLabels",
        f"{path}[0]",
        f"{path}[1].matchExpressions[0].values",
        f"{path}[1].matchExpressions[1].operator",
        f"{path}[1]",
    ]


async def test_groups_of_subjects_and_roles_are_filled_in(cluster: Cluster) -> None:
    subjects = [
        {"kind": "User", "name": "u"},
        {"kind": "Group", "name": "g"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "d"},
    ]
    made = await cluster.create(_of("clusterrolebindings"), "ok", subjects=subjects, roleRef=_VIEW)
    assert [one.get("apiGroup") for one in made["subjects"]] == [_GROUP, _GROUP, None]
    assert made["roleRef"] == {"apiGroup": _GROUP, **_VIEW}
    assert cluster.row(_of("clusterrolebindings"), made) == ["ok", "ClusterRole/view", "0s", "u", "g", "d/s"]


async def test_a_binding_of_a_cluster_binds_cluster_roles_to_whom_it_names(cluster: Cluster) -> None:
    subjects = [
        {"kind": "ServiceAccount", "name": "s"},
        {"kind": "Group", "apiGroup": "x"},
        {"kind": "Foo"},
        {"kind": "ServiceAccount", "name": "S", "namespace": "d", "apiGroup": "x"},
    ]
    role = {"kind": "Role", "name": "x"}
    error = await cluster.refused(_of("clusterrolebindings"), "a", subjects=subjects, roleRef=role)
    assert [field for field, _ in causes(error)] == [
        "roleRef.kind",
        "subjects[0].namespace",
        "subjects[1].apiGroup",
        "subjects[2].kind",
        "subjects[3].name",
        "subjects[3].apiGroup",
        "subjects[1].name",
        "subjects[2].name",
    ]


@pytest.mark.parametrize("plural", ["rolebindings", "clusterrolebindings"])
async def test_the_role_of_a_binding_never_changes(cluster: Cluster, plural: str) -> None:
    await cluster.create(_of(plural), "b", roleRef=_VIEW)
    with pytest.raises(ApiError) as caught:
        await cluster.update(_of(plural), "b", roleRef={**_VIEW, "name": "edit"})
    shown = f'{{"APIGroup":"{_GROUP}","Kind":"ClusterRole","Name":"edit"}}'
    assert causes(caught.value) == [("roleRef", f"Invalid value: {shown}: field is immutable")]


async def test_every_cluster_begins_with_upstreams_roles(cluster: Cluster) -> None:
    admin = await cluster.get(_of("clusterroles"), "cluster-admin")
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in admin["rules"]
    bound = await cluster.get(_of("clusterrolebindings"), "cluster-admin")
    assert bound["subjects"] == [{"apiGroup": _GROUP, "kind": "Group", "name": "system:masters"}]
