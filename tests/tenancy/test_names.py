from __future__ import annotations

import re

import pytest

from clusterling.tenancy.names import RESERVED, ROOT, ROOT_ID, cluster_id, name_problems


@pytest.mark.parametrize("name", ["a", "team-a", "0", "a" * 63, "default", "root"])
def test_a_dns_label_names_a_cluster(name: str) -> None:
    assert name_problems(name) == ()


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a-", "a" * 64, "a/b", "a%2fb", "ä", "a\n"])
def test_anything_but_a_dns_label_names_none(name: str) -> None:
    assert name_problems(name)


@pytest.mark.parametrize("name", sorted(RESERVED - {ROOT}))
def test_reserved_names_are_refused_by_name(name: str) -> None:
    assert name_problems(name) == (f"{name} is reserved",)


def test_an_id_is_twelve_characters_of_its_uid_and_never_the_roots() -> None:
    ids = {cluster_id(f"uid-{number}") for number in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[a-z2-7]{12}", one) for one in ids)
    assert cluster_id("uid-1") in ids
    assert ROOT_ID not in ids
