"""Selecting by fields, of every kind there is."""

from __future__ import annotations

import pytest

from clusterling import packs
from clusterling.machinery.errors import ApiError
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Served
from clusterling.services.parameters import list_options

CATALOG = Catalog(resource for pack in packs.ALL for resource in pack.resources)
LISTED = [
    pytest.param(served, id=f"{served.plural}.{served.group}/{served.version.name}")
    for group, versions in CATALOG.group_versions
    for version in versions
    for served in CATALOG.served_in(group, version)
    if "list" in served.resource.verbs
]


@pytest.mark.parametrize("served", LISTED)
def test_every_kind_tells_which_fields_it_can_be_selected_by(served: Served) -> None:
    fields = {*served.version.selectable_fields, *served.resource.strategy.field_values({"metadata": {}})}
    for field in ("metadata.name", *fields):
        list_options({"fieldSelector": [f"{field}=x"]}, served)
    with pytest.raises(ApiError) as refused:
        list_options({"fieldSelector": ["spec.nothing=x"]}, served)
    assert refused.value.code == 400
