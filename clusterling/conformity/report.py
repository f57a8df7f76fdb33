"""A report as a document for programs, and as a page for people. Pure."""

from __future__ import annotations

from typing import Final

from clusterling.conformity.row import Outcome, Result
from clusterling.conformity.run import SECTIONS, Report
from clusterling.machinery.meta import Object

_INTRODUCTION: Final = """\
# What clients assume

Clients take many things of a Kubernetes API for granted that no document promises. Each row is one, with those who rely on
it and what a check saw. `clusterling check-server` runs the checks against any server; this page is its output
([how to](../howto/check-server.md)). Where kube-apiserver differs from what is often said, the row says what it does.
"""


def as_document(report: Report) -> Object:
    """`{server, summary: {pass, fail, doesNotApply}, rows: [...], left: [...]}`."""
    return {
        "server": report.server,
        "summary": {
            "pass": report.count(Outcome.PASS),
            "fail": report.count(Outcome.FAIL),
            "doesNotApply": report.count(Outcome.DOES_NOT_APPLY),
        },
        "rows": [result.document() for result in report.results],
        "left": report.left,
    }


def as_page(report: Report, beside: tuple[str, Object] | None = None) -> str:
    """Markdown. `beside`: the name of another server, and the document of a report on it."""
    others: dict[str, Object] = {}
    heads = ["id", "assumed", "relied on by"]
    if beside is not None:
        name, document = beside
        others = {one["id"]: one for one in document["rows"]}
        heads.append(f"on {name}")
    heads.append("here")
    lines = [_INTRODUCTION]
    for section in SECTIONS:
        results = [one for one in report.results if one.row in section.rows]
        if not results:
            continue
        lines.append(f"## {section.letter}. {section.title}\n")
        lines += [_line(heads), _line(["---"] * len(heads))]
        lines += [_line(_cells(one, others.get(one.row.id), beside is not None)) for one in results]
        lines.append("")
    return "\n".join(lines)


def _cells(result: Result, other: Object | None, beside: bool) -> list[str]:
    row = result.row
    assumed = f"{row.assumes}<br>*{row.remark}*" if row.remark else row.assumes
    cells = [row.id, assumed, row.who]
    if beside:
        cells.append(_told(str(other["outcome"]), str(other["seen"])) if other else "")
    return [*cells, _told(str(result.outcome), result.seen)]


def _told(outcome: str, seen: str) -> str:
    text = seen.replace("`", "'").replace("<", "&lt;").replace("*", "\\*")
    return text if outcome == Outcome.PASS else f"**{outcome}**: {text}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
