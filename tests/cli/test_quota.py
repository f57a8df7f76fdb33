"""`quota`, against a real server."""

from __future__ import annotations

import json

from clusterling.testing.kube import KubeServer
from tests.cli.test_verbs import Cli, cli

__all__ = ["cli"]  # A fixture.


def test_a_quota_is_set_shown_and_unset(cli: Cli, kube_server: KubeServer) -> None:
    with kube_server.cluster() as kube:
        cli("quota", kube.name, "set", "objects=1k", "soft.bytes=1Mi")
        found = json.loads(cli("quota", kube.name, "-o", "json"))
        assert (found["hard"], found["soft"]) == ({"objects": 1000}, {"bytes": 1 << 20})
        rows = [line.split() for line in cli("quota", kube.name).splitlines()]
        assert rows[0] == ["RESOURCE", "USED", "SOFT", "HARD"]
        assert ["objects", str(found["used"]["objects"]), "-", "1000"] in rows
        cli("quota", kube.name, "unset", "objects", "soft.bytes")
        assert json.loads(cli("quota", kube.name, "-o", "json"))["hard"] == {}


def test_what_is_no_limit_is_refused(cli: Cli, kube_server: KubeServer) -> None:
    with kube_server.cluster() as kube:
        for arguments in (("set",), ("set", "objects"), ("unset", "objects=1"), ("show", "objects")):
            cli("quota", kube.name, *arguments, code=2)
        cli("quota", kube.name, "set", "pods=1", code=1)
        assert "is none of objects, bytes" in cli.err
