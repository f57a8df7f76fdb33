"""Bodies of built-in kinds are read as Go reads them."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.packs import builtin


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (
            ("", "v1", "ConfigMap"),
            {"data": {"a": 1}},
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            ("", "v1", "ConfigMap"),
            {"data": ["a"]},
            "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            ("", "v1", "ConfigMap"),
            {"immutable": "yes"},
            "json: cannot unmarshal string into Go struct field ConfigMap.immutable of type bool",
        ),
        (
            ("", "v1", "ServiceAccount"),
            {"secrets": [{"name": 5}]},
            "json: cannot unmarshal number into Go struct field ObjectReference.secrets.name of type string",
        ),
        (
            ("coordination.k8s.io", "v1", "Lease"),
            {"spec": {"leaseDurationSeconds": 99999999999}},
            "json: cannot unmarshal number 99999999999 into Go struct field "
            "LeaseSpec.spec.leaseDurationSeconds of type int32",
        ),
        (("", "v1", "ConfigMap"), {"data": {"a": "1"}}, None),
    ],
)
def test_a_value_of_a_wrong_type_is_named_as_go_names_it(
    kind: tuple[str, str, str], body: dict[str, Any], words: str | None
) -> None:
    assert builtin.schema_of(*kind).mismatch(body, kind[2]) == words


def test_a_null_is_an_absent_field_or_a_zero_value() -> None:
    body: dict[str, Any] = {"immutable": None, "data": {"a": None, "b": "c"}}
    builtin.schema_of("", "v1", "ConfigMap").settle_nulls(body)
    assert body == {"data": {"a": "", "b": "c"}}
