"""`quota`: what a logical cluster may hold and do, and how much of it is used."""

from __future__ import annotations

import click

from clusterling.cli.clusters import server_options
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import as_rows, emit, in_format, output_option, say
from clusterling.cli.remote import Admin
from clusterling.machinery.meta import Object

_COLUMNS = ("Resource", "Used", "Soft", "Hard")
_SOFT = "soft."


@click.command(
    "quota",
    epilog="""\b
Examples:
  clusterling quota team-a
  clusterling quota team-a set objects=10k bytes=1Gi soft.objects=8k
  clusterling quota team-a set count/deployments.apps=50 requestsPerSecond=200
  clusterling quota team-a unset bytes soft.objects
""",
)
@click.argument("cluster")
@click.argument("action", required=False, default="show", type=click.Choice(["show", "set", "unset"]))
@click.argument("limits", nargs=-1, metavar="[NAME[=QUANTITY]]...")
@output_option()
@server_options
def quota_command(
    *,
    cluster: str,
    action: str,
    limits: tuple[str, ...],
    output: str,
    admin: Admin,
) -> None:
    """Show the limits of CLUSTER and what it uses, or change them.

    NAME is objects, bytes, namespaces, customresourcedefinitions, count/RESOURCE.GROUP, objectBytes, watches, requestsPerSecond or
    writesPerSecond; soft.NAME warns and does not refuse. What is unset is as the server has it for all.
    """
    if action != "show":
        if not limits:
            form = "NAME=QUANTITY" if action == "set" else "NAME"
            raise CliError(f"quota {action} needs limits: {form}", code=Exit.USAGE)
        admin.patch(cluster, {"quota": _changes(limits, setting=action == "set")})
        say(f"quota of {cluster} changed")
        return
    if limits:
        raise CliError("limits are given to `set` and `unset`", code=Exit.USAGE)
    found = admin.usage(cluster)
    if output == "table":
        emit(_table(found))
    elif output == "name":
        emit(f"clusterusage.tenancy.clusterling.io/{cluster}\n")
    else:
        emit(in_format(found, output))


def _changes(limits: tuple[str, ...], *, setting: bool) -> Object:
    changes: Object = {}
    for limit in limits:
        name, equals, value = limit.partition("=")
        if setting != bool(equals) or not name.removeprefix(_SOFT):
            form = "NAME=QUANTITY" if setting else "NAME"
            raise CliError(f"{limit!r} is not {form}", code=Exit.USAGE)
        kind = "soft" if name.startswith(_SOFT) else "hard"
        changes.setdefault(kind, {})[name.removeprefix(_SOFT)] = value if setting else None
    return changes


def _table(found: Object) -> str:
    limited = {*found["hard"], *found["soft"]}
    names = sorted({"bytes", "objects", *limited}) + sorted(
        set(found["used"]) - limited - {"bytes", "objects"}
    )
    rows = [[name, *(_cell(found[part], name) for part in ("used", "soft", "hard"))] for name in names]
    return as_rows(_COLUMNS, rows)


def _cell(part: Object, name: str) -> str:
    return str(part.get(name, "-"))
