"""Events go after their hour, by the store's index of expiries."""

from __future__ import annotations

from clusterling.controllers import expiry
from clusterling.server import ApiServer
from clusterling.storage import memory
from tests.registry.conftest import TurnedClock

EVENTS = "/api/v1/namespaces/default/events"


async def test_an_event_goes_after_an_hour_and_no_sooner() -> None:
    clock = TurnedClock()
    async with (
        memory.open() as store,
        ApiServer(store, clock=clock, run_controllers=False).running() as server,
    ):
        await server.clusters.create("team")
        api = server.client("team")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e"},
            "involvedObject": {"kind": "ConfigMap", "name": "a", "namespace": "default"},
            "reason": "Tried",
            "type": "Normal",
        }
        await api.post(EVENTS, event)
        clock.turn(3500)
        assert await expiry.sweep(store, clock) == 0
        clock.turn(200)
        assert await expiry.sweep(store, clock) == 1
        assert (await api.get(EVENTS))["items"] == []
