"""What replicas must have in common to be one service: the authority that clients trust, kept in the store.

The first replica puts its authority there, the others take it over, so each serves with a leaf of its own that every
kubeconfig trusts. It lies outside every logical cluster's keys; who can read the store's own data can read it, and
could as well write credentials there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import orjson

from clusterling.storage.backoff import Backoff
from clusterling.storage.store import (
    ABSENT,
    KeyExists,
    Op,
    RevisionConflict,
    Store,
    Unavailable,
    UnknownOutcome,
)
from clusterling.tenancy import pki

_log = logging.getLogger(__name__)

AUTHORITY: Final = "~pki/authority/-/main"


async def credentials(store: Store, directory: Path, now: datetime, hosts: Iterable[str]) -> pki.Credentials:
    """As `pki.ensure`, below the authority that all replicas of this store share. Waits for a store that is away."""
    backoff = Backoff()
    hosts = tuple(hosts)
    while True:
        try:
            made = await _attempt(store, directory, now, hosts)
        except (Unavailable, UnknownOutcome) as error:
            _log.warning("authority-put-off error=%r", error)
        else:
            if made is not None:
                return made
        await backoff.wait()


async def _attempt(
    store: Store, directory: Path, now: datetime, hosts: Iterable[str]
) -> pki.Credentials | None:
    """None: another replica was faster; look again."""
    entry = await store.get(AUTHORITY)
    shared = None if entry is None else _decoded(entry.value)
    if shared is not None and shared != pki.authority(directory):
        _log.info("authority-taken-over directory=%s", directory)
        pki.adopt(directory, shared)
    made = pki.ensure(directory, now, hosts)
    mine = pki.authority(directory)
    assert mine is not None, "a leaf has been made below it"
    if mine == shared:
        return made
    # The first, or a new one in the place of one that ends.
    try:
        await store.write([Op(AUTHORITY, _encoded(mine), ABSENT if entry is None else entry.revision)])
    except (KeyExists, RevisionConflict):
        return None
    return made


def _encoded(authority: pki.Authority) -> bytes:
    return orjson.dumps(
        {"certificate": authority.certificate_pem.decode(), "key": authority.key_pem.decode()}
    )


def _decoded(value: bytes) -> pki.Authority:
    fields = orjson.loads(value)
    return pki.Authority(fields["certificate"].encode(), fields["key"].encode())
