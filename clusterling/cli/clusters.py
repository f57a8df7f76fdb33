"""The verbs on logical clusters: create, list, get, delete, kubeconfig."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from clusterling.cli.durations import DURATION, go_duration
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import (
    WIDE_FORMATS,
    as_names,
    as_table,
    as_yaml,
    emit,
    in_format,
    output_option,
    quiet_option,
    say,
    timeout_option,
)
from clusterling.cli.remote import Admin
from clusterling.cli.target import DATA_DIR, check_writable, find_target, write_private
from clusterling.machinery.meta import Object, name_of

_F = TypeVar("_F", bound=Callable[..., Any])

_PREFIX: Final = "logicalcluster.tenancy.clusterling.io"
_POLL_S: Final = 0.1
_COMPLETION_TIMEOUT_S: Final = 2.0


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the server is, for every verb that speaks with one: it is given `admin`, who does until the command ends."""

    @wraps(command)
    def speaking(
        *, kubeconfig: str | None, data_dir: str | None, timeout_s: float, quiet: bool, **rest: Any
    ) -> Any:
        admin = Admin(find_target(kubeconfig, data_dir), timeout_s)
        click.get_current_context().call_on_close(admin.close)
        return command(admin=admin, **rest)

    for option in (
        timeout_option(30.0, "How long to wait for the server."),
        click.option(
            "--data-dir",
            type=click.Path(),
            metavar="DIR",
            envvar="CLUSTERLING_DATA_DIR",
            help=f"The server's data directory, with an admin.kubeconfig.  [default: {DATA_DIR}]",
        ),
        click.option(
            "--kubeconfig",
            type=click.Path(),
            metavar="FILE",
            envvar="CLUSTERLING_KUBECONFIG",
            help="A kubeconfig of `root` on the server; goes before --data-dir.",
        ),
        quiet_option,
    ):
        speaking = option(speaking)
    return speaking


def complete_names(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of clusters for the shell. A server that is not there completes nothing."""
    try:
        target = find_target(ctx.params.get("kubeconfig"), ctx.params.get("data_dir"))
        with closing(Admin(target, _COMPLETION_TIMEOUT_S)) as admin:
            found = admin.list()["items"]
    except (CliError, OSError):
        return []
    return [CompletionItem(name_of(one)) for one in found if name_of(one).startswith(incomplete)]


def _name_arguments(command: _F) -> _F:
    return click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_names)(
        command
    )


@click.command(
    "create",
    epilog="""\b
Examples:
  clusterling create team-a
  clusterling create team-a --if-not-exists --kubeconfig-out team-a.yaml
  clusterling create ci-$RANDOM -o json
  clusterling create crds-only --packs none
""",
)
@click.argument("name")
@click.option("--display-name", default="", help="What people call the cluster.")
@click.option(
    "--packs",
    default="",
    metavar="PACKS",
    help="Built-in kinds the cluster serves: none, default, all, or packs and pack/resource, with - to leave out.  "
    "[default: the server's]",
)
@click.option(
    "--ttl",
    "ttl_s",
    type=DURATION,
    metavar="AGE",
    help="Delete the cluster after so long, as in 90s, 2h or 30d, unless it is renewed.",
)
@click.option("--if-not-exists", is_flag=True, help="Accept that the cluster is there already.")
@click.option(
    "--kubeconfig-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a kubeconfig of the cluster to FILE.",
)
@output_option(default=None)
@server_options
def create_command(
    *,
    name: str,
    display_name: str,
    packs: str,
    ttl_s: int | None,
    if_not_exists: bool,
    kubeconfig_out: Path | None,
    output: str | None,
    admin: Admin,
) -> None:
    """Create the logical cluster NAME. It is ready when this returns."""
    if kubeconfig_out is not None:
        # Before there is a cluster that nobody got the kubeconfig of.
        check_writable(kubeconfig_out)
    spec: Object = {"displayName": display_name} if display_name else {}
    if packs:
        spec["packs"] = [item.strip() for item in packs.split(",")]
    if ttl_s is not None:
        spec["ttl"] = go_duration(ttl_s)
    obj: Object = {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "LogicalCluster",
        "metadata": {"name": name},
        "spec": spec,
    }
    created = True
    try:
        answer = admin.create(obj)
    except CliError as error:
        if error.code is not Exit.CONFLICT or not if_not_exists:
            raise
        answer, created = admin.get(name), False
        if answer["metadata"].get("deletionTimestamp"):
            raise CliError(
                f"logical cluster {name} is being deleted", "try again later", Exit.CONFLICT
            ) from error
    say(f"logical cluster {name} {'created' if created else 'is there already'}")
    if kubeconfig_out is not None:
        write_private(kubeconfig_out, as_yaml(admin.kubeconfig(name)))
        say(f"try: kubectl --kubeconfig {kubeconfig_out} get namespaces")
    elif created:
        say(f"next: clusterling kubeconfig {name}{_same_server()} > {name}.yaml")
        say(f"      kubectl --kubeconfig {name}.yaml get namespaces")
    if output is not None:
        _show_one(admin, answer, output)


def _same_server() -> str:
    """The flags that named the server, for a hint that works when it is pasted."""
    ctx = click.get_current_context()
    given = ("kubeconfig", "data_dir")
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(ctx.params[name])}"
        for name in given
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    )


def _show_one(admin: Admin, obj: Object, output: str) -> None:
    if output == "table":
        emit(as_table(admin.get_table(name_of(obj))))
    elif output == "name":
        emit(as_names([obj], _PREFIX))
    else:
        emit(in_format(obj, output))


@click.command(
    "list",
    epilog="""\b
Examples:
  clusterling list
  clusterling ls -o name
  clusterling ls -o wide
  clusterling list -o json | jq -r '.items[].status.url'
""",
)
@click.option("--no-headers", is_flag=True, help="Leave out the table's headings.")
@output_option(formats=WIDE_FORMATS)
@server_options
def list_command(
    *,
    no_headers: bool,
    output: str,
    admin: Admin,
) -> None:
    """List all logical clusters."""
    if output in ("table", "wide"):
        emit(as_table(admin.list_table(), headers=not no_headers, wide=output == "wide"))
        return
    found = admin.list()
    if output == "name":
        emit(as_names(found["items"], _PREFIX))
    else:
        emit(in_format(found, output))


@click.command(
    "get",
    epilog="""\b
Examples:
  clusterling get team-a
  clusterling get team-a team-b -o yaml
""",
)
@_name_arguments
@output_option(formats=WIDE_FORMATS)
@server_options
def get_command(
    *,
    names: tuple[str, ...],
    output: str,
    admin: Admin,
) -> None:
    """Show logical clusters by NAME."""
    if output in ("table", "wide"):
        tables = [admin.get_table(name) for name in names]
        tables[0]["rows"] = [row for table in tables for row in table["rows"]]
        emit(as_table(tables[0], wide=output == "wide"))
        return
    found = [admin.get(name) for name in names]
    if output == "name":
        emit(as_names(found, _PREFIX))
        return
    document = (
        found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}
    )
    emit(in_format(document, output))


@click.command(
    "delete",
    epilog="""\b
Examples:
  clusterling delete team-a
  clusterling delete team-a team-b --yes --if-exists
  clusterling delete team-a --yes --wait --timeout 120
""",
)
@_name_arguments
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--if-exists", is_flag=True, help="Accept that a cluster is not there.")
@click.option(
    "--force", is_flag=True, help="Lift the protection of clusters that are protected from deletion."
)
@click.option("--wait", is_flag=True, help="Return when the clusters' data are removed.")
@server_options
def delete_command(
    *,
    names: tuple[str, ...],
    yes: bool,
    if_exists: bool,
    force: bool,
    wait: bool,
    admin: Admin,
) -> None:
    """Delete logical clusters by NAME, with everything in them.

    Their addresses end at once, and with them all watches and credentials; data are removed soon after.
    """
    found = [obj for name in names if (obj := _existing(admin, name, if_exists)) is not None]
    if found and not yes:
        _confirm([name_of(obj) for obj in found])
    for obj in found:
        # By uid: what was confirmed is this cluster, not one made under its name since.
        uid = obj["metadata"]["uid"]
        if obj.get("spec", {}).get("deletionProtection"):
            if not force:
                raise CliError(
                    f"logical cluster {name_of(obj)} is protected from deletion",
                    "add --force to lift that first",
                )
            admin.patch(name_of(obj), {"deletionProtection": None}, uid=uid)
        admin.delete(name_of(obj), uid)
        say(f"logical cluster {name_of(obj)} deleted")
    if wait:
        deadline = time.monotonic() + admin.timeout_s
        for obj in found:
            _wait_until_gone(admin, obj, deadline)


@click.command(
    "suspend",
    epilog="""\b
Examples:
  clusterling suspend team-a
  clusterling suspend team-a --read-only
""",
)
@_name_arguments
@click.option("--read-only", is_flag=True, help="Refuse writes alone: reads and watches go on.")
@server_options
def suspend_command(
    *,
    names: tuple[str, ...],
    read_only: bool,
    admin: Admin,
) -> None:
    """Have logical clusters refuse all requests, or writes alone. Their data stay."""
    for name in names:
        admin.patch(name, {"access": "ReadOnly"} if read_only else {"suspended": True})
        say(f"logical cluster {name} {'is read-only' if read_only else 'suspended'}")


@click.command(
    "resume",
    epilog="""\b
Examples:
  clusterling resume team-a
""",
)
@_name_arguments
@server_options
def resume_command(
    *,
    names: tuple[str, ...],
    admin: Admin,
) -> None:
    """Have logical clusters serve all requests again that were suspended or read-only."""
    for name in names:
        admin.patch(name, {"suspended": None, "access": None})
        say(f"logical cluster {name} resumed")


@click.command(
    "renew",
    epilog="""\b
Examples:
  clusterling renew ci-17
  clusterling renew ci-17 --ttl 8h
""",
)
@_name_arguments
@click.option(
    "--ttl", "ttl_s", type=DURATION, metavar="AGE", help="How long from now on.  [default: as long as before]"
)
@server_options
def renew_command(
    *,
    names: tuple[str, ...],
    ttl_s: int | None,
    admin: Admin,
) -> None:
    """Have the time of logical clusters that are deleted after a while count anew."""
    from clusterling.tenancy.lifetimes import RENEWED

    for name in names:
        if ttl_s is None and not admin.get(name).get("spec", {}).get("ttl"):
            raise CliError(f"logical cluster {name} has no ttl: it stays", "give it one with --ttl")
        spec: Object = {} if ttl_s is None else {"ttl": go_duration(ttl_s)}
        # Any other value than before will do; this one is of use to people.
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        renewed = admin.patch(name, spec, annotations={RENEWED: now})
        say(f"logical cluster {name} is deleted at {renewed['status']['expiresAt']}")


def _existing(admin: Admin, name: str, if_exists: bool) -> Object | None:
    try:
        return admin.get(name)
    except CliError as error:
        if error.code is Exit.NOT_FOUND and if_exists:
            say(f"there is no logical cluster {name}")
            return None
        raise


def _confirm(names: list[str]) -> None:
    """Asks a person. Where there is none to ask, says what to do instead."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f"deleting {', '.join(names)} is for good; add --yes to do it without being asked"
        )
    click.echo(f"This removes {', '.join(names)} and every object there, for good.", err=True)
    if not click.confirm("Delete?", err=True):
        raise CliError("nothing was deleted")


def _wait_until_gone(admin: Admin, obj: Object, deadline: float) -> None:
    while True:
        try:
            if admin.get(name_of(obj))["metadata"]["uid"] != obj["metadata"]["uid"]:
                return
        except CliError as error:
            if error.code is Exit.NOT_FOUND:
                return
            raise
        if time.monotonic() >= deadline:
            raise CliError(
                f"logical cluster {name_of(obj)} is still being removed",
                "wait longer with --timeout",
                Exit.TIMEOUT,
            )
        time.sleep(_POLL_S)


@click.command(
    "kubeconfig",
    epilog="""\b
Examples:
  clusterling kubeconfig team-a > team-a.yaml
  clusterling kubeconfig team-a --out ~/.kube/team-a && export KUBECONFIG=~/.kube/team-a
""",
)
@click.argument("name", shell_complete=complete_names)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to FILE, readable by you alone."
)
@output_option("yaml", ("yaml", "json"))
@server_options
def kubeconfig_command(
    *,
    name: str,
    out: Path | None,
    output: str,
    admin: Admin,
) -> None:
    """Print a kubeconfig for the logical cluster NAME.

    Each call makes a new credential, an administrator's of that one cluster. The server keeps no copy.
    """
    document = admin.kubeconfig(name)
    text = in_format(document, output)
    if out is None:
        emit(text)
        return
    write_private(out, text)
    say(f"try: kubectl --kubeconfig {out} get namespaces")
