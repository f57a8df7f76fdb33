"""Metadata as protobuf: upstream's golden objects written back byte by byte, and what frames them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterling.machinery import metaproto
from clusterling.machinery.protobuf import envelope
from clusterling.version import KUBERNETES
from tools import gomodules

GONE = {"metadata": {}, "status": "Failure", "reason": "Expired", "message": "too old", "code": 410}


def _golden() -> Path | None:
    try:
        return gomodules.directory("k8s.io/api", f"v0.{KUBERNETES.partition('.')[2]}") / "testdata" / "HEAD"
    except gomodules.ModuleMissing:
        return None


GOLDEN = _golden()
needs_golden = pytest.mark.skipif(GOLDEN is None, reason="the Go module k8s.io/api is not here")


def _pair(name: str) -> tuple[Any, bytes]:
    assert GOLDEN is not None
    return json.loads((GOLDEN / f"{name}.json").read_text()), (GOLDEN / f"{name}.pb").read_bytes()


@needs_golden
@pytest.mark.parametrize("name", ["core.v1.ConfigMap", "core.v1.Secret", "apps.v1.Deployment"])
def test_metadata_with_every_field_is_written_as_go_writes_it(name: str) -> None:
    obj, body = _pair(name)
    _, _, raw = envelope(body, 4)
    api_version, kind, partial = envelope(metaproto.partial_object("v1", obj["metadata"]), 4)
    assert (api_version, kind) == ("meta.k8s.io/v1", "PartialObjectMetadata")
    assert raw.startswith(partial)


@needs_golden
def test_a_status_with_every_field_is_written_as_go_writes_it() -> None:
    status, body = _pair("core.v1.Status")
    assert metaproto.status(status) == body


def test_a_list_holds_its_own_metadata_and_then_that_of_its_items() -> None:
    listed = metaproto.partial_list(
        "v1", {"resourceVersion": "7", "remainingItemCount": 300}, [metaproto.partial_item({"name": "a"})]
    )
    _, kind, raw = envelope(listed, 4)
    own = b"\x0a\x00\x12\x017\x1a\x00\x20\xac\x02"
    _, _, item = envelope(metaproto.partial_object("v1", {"name": "a"}), 4)
    assert kind == "PartialObjectMetadataList"
    assert raw == b"\x0a" + bytes([len(own)]) + own + b"\x12" + bytes([len(item)]) + item


def test_an_event_says_its_type_and_holds_the_object_in_its_envelope() -> None:
    told = metaproto.status(GONE)
    event = metaproto.watch_event("ERROR", told)
    assert event.startswith(b"\x0a\x05ERROR\x12") and event.endswith(told)


def test_numbers_below_zero_take_ten_bytes() -> None:
    _, _, raw = envelope(metaproto.partial_object("v1", {"deletionGracePeriodSeconds": -1}), 4)
    assert b"\x50" + b"\xff" * 9 + b"\x01" in raw
