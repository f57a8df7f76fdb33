"""Reading what a strategic patch made: upstream's words where a value does not fit, and numbers that are made to."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from clusterling.packs import builtin


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def pod(**container: Any) -> dict[str, Any]:
    return deployment(template={"spec": {"containers": [{"name": "c", **container}]}})


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        (deployment(replicas="x"), "unrecognized type: int32"),
        (deployment(replicas=[1]), "unrecognized type: int32"),
        (deployment(replicas=1.5), "cannot convert float64 to int32"),
        (deployment(paused=1), "unrecognized type: bool"),
        (deployment(template=1), "cannot restore struct from: int64"),
        (deployment(template=[]), "cannot restore struct from: slice"),
        (deployment(selector={"matchLabels": [1]}), "cannot restore map from slice"),
        (deployment(selector={"matchLabels": {"a": 1}}), "cannot convert int64 to string"),
        (deployment(selector={"matchLabels": {"a": True}}), "unrecognized type: string"),
        (deployment(selector={"matchExpressions": "x"}), "cannot restore slice from string"),
        (deployment(strategy={"type": 1}), "cannot convert int64 to v1.DeploymentStrategyType"),
        (
            deployment(strategy={"rollingUpdate": {"maxSurge": True}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (pod(imagePullPolicy=1), "cannot convert int64 to v1.PullPolicy"),
        (pod(ports=[{"containerPort": {}}]), "unrecognized type: int32"),
        (pod(resources={"limits": {"cpu": []}}), "quantities must match the regular expression"),
        ({**deployment(), "metadata": "x"}, "cannot restore struct from: string"),
        ({**deployment(), "metadata": {"labels": []}}, "cannot restore map from slice"),
        ({**deployment(), "metadata": {"uid": 1}}, "cannot convert int64 to types.UID"),
        (
            {**deployment(), "metadata": {"creationTimestamp": 1}},
            "json: cannot unmarshal number into Go value of type string",
        ),
        ({**deployment(), "kind": 1}, "cannot convert int64 to string"),
        ({**deployment(), "apiVersion": True}, "unrecognized type: string"),
    ],
)
def test_what_does_not_fit_is_told_in_upstreams_words(obj: dict[str, Any], words: str) -> None:
    found = builtin.schema_of("apps", "v1", "Deployment").unconvertible(obj)
    assert found is not None
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("given", "read"), [(4.0, 4), (2**32 + 5, 5), (2**31, -(2**31)), (2**40, 0), (-1, -1), (None, None)]
)
def test_numbers_are_made_to_fit(given: Any, read: Any) -> None:
    obj = deployment(replicas=given)
    assert builtin.schema_of("apps", "v1", "Deployment").unconvertible(obj) is None
    assert obj["spec"]["replicas"] == read


def test_what_fits_stays_as_it_is() -> None:
    obj = pod(image="i", ports=[{"containerPort": 80}], resources={"limits": {"cpu": 1, "memory": "1Gi"}})
    before = deepcopy(obj)
    assert builtin.schema_of("apps", "v1", "Deployment").unconvertible(obj) is None
    assert obj == before


def test_of_several_values_that_do_not_fit_the_first_by_its_place_in_the_type_is_told() -> None:
    obj = deployment(template={"spec": {"nodeName": 1.5, "volumes": 1}}, replicas=[])
    assert builtin.schema_of("apps", "v1", "Deployment").unconvertible(obj) == "unrecognized type: int32"
    del obj["spec"]["replicas"]
    assert (
        builtin.schema_of("apps", "v1", "Deployment").unconvertible(obj) == "cannot restore slice from int64"
    )
