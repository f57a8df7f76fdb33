"""What `make dashboards` writes is in the repository as it would be written, and the pages hang together."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clusterling.services.metrics.families import FAMILIES
from tools.alerts import ALERTS
from tools.boards import BOARDS, grafana, panels
from tools.dashboards import ROOT, files

_METRIC = re.compile(
    r"\b(?:clusterling|apiserver|etcd|workqueue|leader_election|authentication|process)_[a-z_]+"
)
_PARTS = re.compile(r"_(?:bucket|sum|count)$")


@pytest.mark.parametrize("path", sorted(files()))
def test_a_generated_file_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == files()[path], "run `make dashboards`"


def test_panels_and_alerts_ask_only_for_metrics_that_there_are() -> None:
    known = {family.name for family in FAMILIES}
    asked = [query for board in BOARDS for panel in panels(board) for query in panel.queries.values()]
    asked += [alert.value for alert in ALERTS]
    named = {name for query in asked for name in _METRIC.findall(query)}
    missing = {name for name in named if name not in known and _PARTS.sub("", name) not in known}
    assert {name for name in missing if not name.startswith("process_")} == set()


def test_each_alert_has_a_page_that_says_what_to_do() -> None:
    for alert in ALERTS:
        page = (ROOT / f"docs/reference/runbooks/{alert.name}.md").read_text()
        assert all(
            part in page for part in (alert.when, "## What it means", "## How to look", "## What to do")
        )


def test_panels_do_not_overlap() -> None:
    for board in BOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in grafana(board)["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken and max(x for x, _ in cells) < 24
            taken |= cells


def test_the_chart_brings_what_is_written_for_those_without_it() -> None:
    for board in BOARDS:
        own = Path(ROOT / f"deploy/monitoring/dashboards/{board.name}.json").read_text()
        assert json.loads(own)["uid"] == f"clusterling-{board.name}"
        assert (ROOT / f"deploy/helm/clusterling/files/dashboards/{board.name}.json").read_text() == own
