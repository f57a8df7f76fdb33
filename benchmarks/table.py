"""What was measured, beside the targets and the real server, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.loads import Figure

# CPU in µs for one operation (for watches: one delivery), at most.
CPU_TARGETS = {
    "get configmap": 60.0,
    "get widget": 60.0,
    "list configmap": 500.0,
    "list widget": 500.0,
    "create configmap": 250.0,
    "patch configmap": 300.0,
    "delete configmap": 200.0,
    "apply configmap": 560.0,
    "apply widget": 830.0,
    "update configmap": 400.0,
    "watch burst": 3.0,
    "watch paced": 11.0,
    "begun": 80_000.0,
}

TITLES = {
    "get configmap": "GET, ConfigMap of 1 KB",
    "get widget": "GET, custom resource of 1 KB",
    "list configmap": "LIST of 500 ConfigMaps",
    "list widget": "LIST of 500 custom resources",
    "create configmap": "CREATE",
    "patch configmap": "merge PATCH",
    "delete configmap": "DELETE",
    "apply configmap": "server-side apply, ConfigMap",
    "apply widget": "server-side apply, custom resource",
    "update configmap": "UPDATE",
    "watch burst": "watch, a delivery, in bursts",
    "watch paced": "watch, a delivery, paced",
    "begun": "watch that begins with 20,000 objects",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A measure that is one number. `target` is a limit from above unless `at_least`."""

    title: str
    unit: str
    target: float | None
    ours: float
    peer: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.ours >= self.target if self.at_least else self.ours <= self.target


def number(value: float | None) -> str:
    """Three significant digits, and no decimals from 100 on."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def mark(*, met: bool | None) -> str:
    return {None: "", True: "met", False: "MISSED"}[met]


def ratio(peer: float | None, ours: float) -> str:
    return f"{number(peer / ours)}×" if peer is not None and ours > 0 else "–"


def aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def operations(ours: Mapping[str, Figure], peer: Mapping[str, Figure], floor: Mapping[str, Figure]) -> str:
    """CPU and speed by operation and requests in flight. The ratio is the real server's CPU to ours."""
    rows = [
        [
            "operation",
            "in flight",
            "CPU µs",
            "target",
            "",
            "a second",
            "p50 ms",
            "p99 ms",
            "bare TLS: CPU µs",
            "real server: CPU µs",
            "a second",
            "ratio",
        ]
    ]
    for measure, title in TITLES.items():
        for key, figure in ours.items():
            name, _, in_flight = key.partition("@")
            if name != measure:
                continue
            other, bare, target = peer.get(key), floor.get(key), CPU_TARGETS[measure]
            rows.append(
                [
                    title,
                    in_flight,
                    number(figure.cpu_us),
                    f"≤ {number(target)}",
                    mark(met=figure.cpu_us <= target),
                    number(figure.rate),
                    number(figure.p50_ms),
                    number(figure.p99_ms),
                    number(bare.cpu_us if bare else None),
                    number(other.cpu_us if other else None),
                    number(other.rate if other else None),
                    ratio(other.cpu_us if other else None, figure.cpu_us),
                ]
            )
    return aligned(rows)


def scalars(found: list[Scalar]) -> str:
    rows = [["measure", "unit", "Clusterling", "target", "", "real server", "ratio"]]
    for scalar in found:
        sign = "≥" if scalar.at_least else "≤"
        rows.append(
            [
                scalar.title,
                scalar.unit,
                number(scalar.ours),
                f"{sign} {number(scalar.target)}" if scalar.target is not None else "",
                mark(met=scalar.met),
                number(scalar.peer),
                ratio(scalar.peer, scalar.ours),
            ]
        )
    return aligned(rows)
