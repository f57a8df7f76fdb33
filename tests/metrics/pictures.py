"""Pictures of the dashboards, from what a real Prometheus answers to their queries: `python -m tests.metrics.pictures`.

Three replicas over PostgreSQL are loaded for a while; each panel's queries are asked over that time, and drawn as SVG.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from tests.metrics.loaded import scraped
from tests.metrics.prometheus import Prometheus
from tests.replicas.stores import shared_store
from tools.boards import BOARDS, Board, Panel

ROOT: Final = Path(__file__).resolve().parents[2]
WHERE: Final = ROOT / "docs" / "howto" / "monitoring"
WIDTH, HEIGHT, TITLE, ROW, COLUMNS = 320, 190, 34, 24, 3
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 32, 52
LINES_MAX: Final = 6
CHARACTERS: Final = 54  # Of a line of the legend.
COLOURS: Final = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6")

# A name, and its points: seconds since the beginning, and the value.
Line = tuple[str, list[tuple[float, float]]]

_SCALES: Final = {
    "bytes": ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")),
    "Bps": ((1 << 20, "MiB/s"), (1 << 10, "KiB/s"), (1, "B/s")),
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "percentunit": ((0.01, "%"),),
    "reqps": ((1000, "k/s"), (1, "/s")),
    "ops": ((1000, "k/s"), (1, "/s")),
    "short": ((1_000_000, "M"), (1000, "k"), (1, "")),
}


def written(value: float, unit: str) -> str:
    """The value as an axis says it."""
    scales = _SCALES[unit]
    size, name = next((one for one in scales if value >= one[0]), scales[-1])
    return f"{value / size:.3g} {name}".strip() if value else "0"


def lines(prometheus: Prometheus, panel: Panel, since_s: float) -> list[Line]:
    """What the panel's queries return, most of it first."""
    found: list[Line] = []
    for legend, query in panel.queries.items():
        asked = query.replace("$__rate_interval", "15s").replace("$job", ".*").replace("$cluster", "team-a")
        for series in prometheus.over(asked, since_s, 2.0):
            points = [(at - since_s, float(value)) for at, value in series["values"] if value != "NaN"]
            if points:
                found.append((_named(legend, series["metric"]), points))
    found.sort(key=lambda line: -max(value for _, value in line[1]))
    return found[:LINES_MAX]


def _named(legend: str, labels: dict[str, Any]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: str(labels.get(label[1], "")), legend)


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def drawn(panel: Panel, shown: Sequence[Line], x: int, y: int, lasted_s: float) -> Iterable[str]:
    """The panel as SVG."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    most = max((value for _, points in shown for _, value in points), default=0.0) or 1.0
    yield f'<g transform="translate({x},{y})"><rect width="{WIDTH - 6}" height="{HEIGHT - 6}" rx="4" fill="#fff" stroke="#ddd"/>'
    yield f'<text x="8" y="16" font-weight="bold">{escape(panel.title)}</text>'
    for part in (0.0, 0.5, 1.0):
        at = TOP + high * (1 - part)
        yield f'<path d="M{LEFT} {at:.0f}h{wide}" stroke="#eee"/>'
        yield f'<text x="{LEFT - 4}" y="{at + 3:.0f}" text-anchor="end" fill="#666">{written(most * part, panel.unit)}</text>'
    beside = 3 if max((len(name) for name, _ in shown), default=0) <= CHARACTERS // 3 - 1 else 2
    for number, (name, points) in enumerate(shown):
        path = "L".join(
            f"{LEFT + wide * at / lasted_s:.1f} {TOP + high * (1 - value / most):.1f}"
            for at, value in points
            if math.isfinite(value)
        )
        colour = COLOURS[number]
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>'
        row, column = divmod(number, beside)
        at_x, at_y = 8 + column * (WIDTH - 10) // beside, HEIGHT - 38 + row * 12
        yield f'<text x="{at_x}" y="{at_y}" fill="{colour}">{escape(_cut(name, CHARACTERS // beside - 1))}</text>'
    yield "</g>"


def picture(prometheus: Prometheus, board: Board, since_s: float) -> str:
    """The whole board as SVG."""
    parts: list[str] = []
    lasted_s = time.time() - since_s
    y = TITLE
    for title, row in board.rows.items():
        parts.append(f'<text x="8" y="{y + 15}" font-size="13" fill="#333">{escape(title)}</text>')
        y += ROW
        for number, panel in enumerate(row):
            at = (8 + number % COLUMNS * WIDTH, y + number // COLUMNS * HEIGHT)
            parts.extend(drawn(panel, lines(prometheus, panel, since_s), *at, lasted_s))
        y += math.ceil(len(row) / COLUMNS) * HEIGHT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH + 10}" height="{y + 6}"'
        ' font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="#f7f7f7"/>'
        f'<text x="8" y="22" font-size="16" font-weight="bold">{escape(board.title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


async def draw(directory: Path, seconds: float) -> None:
    with shared_store("postgres", directory) as store:
        rules = ROOT / "deploy" / "monitoring" / "alerts.yaml"
        async with scraped(directory, store.url(), rules) as (prometheus, _, _):
            since_s = time.time()
            await asyncio.sleep(seconds)
            WHERE.mkdir(exist_ok=True)
            for board in BOARDS:
                (WHERE / f"{board.name}.svg").write_text(picture(prometheus, board, since_s + 5))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws the dashboards' data of a load into docs.")
    parser.add_argument("--seconds", type=float, default=90.0)
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(draw(Path(made), parser.parse_args().seconds))
