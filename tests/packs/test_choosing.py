from __future__ import annotations

import pytest

from clusterling import packs
from clusterling.machinery.schema import compile_schema
from clusterling.packs import builtin, choose
from clusterling.services.openapi.schemas import builtin_definitions


def _named(text: str) -> dict[str, set[str]]:
    return {pack.name: {one.names.plural for one in pack.resources} for pack in choose(text)}


def test_none_makes_kinds_alone_and_default_is_what_a_cluster_without_nodes_needs() -> None:
    assert _named("none") == {"apiextensions": {"customresourcedefinitions"}}
    assert choose("none,-apiextensions") == ()
    assert {"core", "events", "coordination", "apiextensions"} <= _named("default").keys()
    everything = _named("all")
    assert all(kinds <= everything[pack] for pack, kinds in _named("default").items())


def test_packs_are_named_by_name_or_group_and_narrowed_by_resource() -> None:
    assert _named("core/secrets, coordination.k8s.io") == {"core": {"secrets"}, "coordination": {"leases"}}


def test_what_is_left_out_is_gone_wherever_it_is() -> None:
    chosen = _named("core,events,coordination,-events,-core/secrets")
    assert chosen.keys() == {"core", "coordination"}
    assert chosen["core"] == _named("core")["core"] - {"events", "secrets"}


def test_a_list_that_begins_by_leaving_out_starts_from_the_default() -> None:
    chosen = _named("-coordination")
    assert "coordination" not in chosen
    assert "core" in chosen


def test_starting_objects_go_with_their_kind() -> None:
    assert len(choose("core/namespaces")[0].bootstrap) == 4
    assert choose("core/secrets")[0].bootstrap == ()


@pytest.mark.parametrize("text", ["nope", "core/nope", "core/", "", "core,,events", "-nope", "/secrets"])
def test_what_is_not_there_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no \".*core \(.*configmaps, ") as caught:
        choose(text)
    assert "\n" not in str(caught.value)


def test_a_kind_that_shows_what_another_stores_needs_it() -> None:
    with pytest.raises(ValueError, match="events/events shows what core/events stores"):
        choose("events")


def test_packs_are_attributes_whatever_was_imported_before() -> None:
    assert packs.core.only("secrets").resources[0].names.kind == "Secret"
    assert packs.apiextensions.resources[0].names.kind == "CustomResourceDefinition"


def test_a_plain_kind_is_one_line() -> None:
    leases = builtin.resource("coordination.k8s.io", "v1", "leases")
    assert leases.names.list_kind == "LeaseList"
    assert leases.namespaced
    deployments = builtin.resource("apps", "v1", "deployments")
    assert deployments.names.short_names == ("deploy",)
    assert deployments.names.categories == ("all",)
    assert deployments.versions[0].status
    with pytest.raises(KeyError):
        builtin.resource("apps", "v1", "nope")


def test_every_published_definition_compiles_and_refers_to_what_is_there() -> None:
    names = list(builtin.definitions)
    assert len(names) == 862
    assert builtin_definitions().reached(names) == sorted(names)
    for name in names:
        compile_schema(builtin.definitions[name], definitions=builtin.definitions)


def test_schemas_prune_and_default_built_in_kinds() -> None:
    schema = builtin.schema_of("", "v1", "Service")
    service = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "odd": 1}]}}
    assert schema.prune(service) == ["spec.ports[0].odd"]
    schema.default(service)
    assert service["spec"] == {"ports": [{"port": 80, "protocol": "TCP"}]}


def test_a_described_definition_is_a_copy_with_the_same_facts() -> None:
    name = builtin.definition_of("", "v1", "ConfigMap")
    described = builtin.published(name)
    assert described["properties"].keys() == builtin.definitions[name]["properties"].keys()
    described["properties"].clear()
    assert builtin.definitions[name]["properties"]
