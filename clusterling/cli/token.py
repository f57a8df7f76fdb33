"""`token`: the credentials of a logical cluster, by name."""

from __future__ import annotations

import click

from clusterling.cli.clusters import server_options
from clusterling.cli.durations import DURATION
from clusterling.cli.errors import CliError
from clusterling.cli.output import as_names, as_rows, emit, in_format, output_option, say
from clusterling.cli.remote import Admin
from clusterling.machinery.meta import Object, name_of

_PREFIX = "clustertoken.tenancy.clusterling.io"

_COLUMNS = ("Name", "User", "Expires", "Created")


@click.group(
    "token",
    epilog="""\b
Examples:
  clusterling token create team-a ci --expires 30d
  clusterling token list team-a
  clusterling token rotate team-a ci
  clusterling token revoke team-a ci
""",
)
def token_command() -> None:
    """Issue, list, rotate and revoke the tokens of a logical cluster."""


_expires = click.option(
    "--expires",
    "lifetime_s",
    type=DURATION,
    metavar="AGE",
    help="How long the token is good, as in 90s, 12h or 30d.  [default: until it is revoked]",
)


@token_command.command("create")
@click.argument("cluster")
@click.argument("name", required=False, default="")
@_expires
@output_option(default=None, formats=("json", "yaml", "name"))
@server_options
def create_command(
    *,
    cluster: str,
    name: str,
    lifetime_s: int | None,
    output: str | None,
    admin: Admin,
) -> None:
    """Issue a token for CLUSTER, an administrator's of it, and print it: it is shown this once."""
    made = admin.create_token(cluster, _body(name, lifetime_s))
    _emit_new(made, output)
    say(f"token {name_of(made)} of {cluster} created")


@token_command.command("list")
@click.argument("cluster")
@output_option()
@server_options
def list_command(
    *,
    cluster: str,
    output: str,
    admin: Admin,
) -> None:
    """List the tokens issued for CLUSTER, those of its service accounts too. Secrets are not among what is kept."""
    found = admin.tokens(cluster)
    if output == "table":
        emit(_table(found["items"]))
    elif output == "name":
        emit(as_names(found["items"], _PREFIX))
    else:
        emit(in_format(found, output))


@token_command.command("rotate")
@click.argument("cluster")
@click.argument("name")
@click.option(
    "--expires",
    "lifetime_s",
    type=DURATION,
    metavar="AGE",
    help="How long the new token is good.  [default: as long as the old one was]",
)
@output_option(default=None, formats=("json", "yaml", "name"))
@server_options
def rotate_command(
    *,
    cluster: str,
    name: str,
    lifetime_s: int | None,
    output: str | None,
    admin: Admin,
) -> None:
    """Put a new secret in the place of token NAME, and print it. The old one ends at once."""
    made = admin.rotate_token(cluster, _body(name, lifetime_s))
    _emit_new(made, output)
    say(f"token {name} of {cluster} rotated")
    if name_of(made) != name:
        say(f"it is called {name_of(made)} now")


@token_command.command("revoke")
@click.argument("cluster")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@server_options
def revoke_command(
    *,
    cluster: str,
    names: tuple[str, ...],
    admin: Admin,
) -> None:
    """End tokens of CLUSTER at once, and the watches that they opened."""
    failed: CliError | None = None
    for name in names:
        try:
            admin.revoke_token(cluster, name)
        except CliError as error:
            # The others are to end all the same.
            if failed is not None:
                say(f"token {name}: {error.message}")
            failed = failed or error
        else:
            say(f"token {name} of {cluster} revoked")
    if failed is not None:
        raise failed


def _body(name: str, lifetime_s: int | None) -> Object:
    return {
        "apiVersion": "tenancy.clusterling.io/v1alpha1",
        "kind": "ClusterToken",
        "metadata": {"name": name} if name else {},
        "spec": {} if lifetime_s is None else {"expirationSeconds": lifetime_s},
    }


def _emit_new(made: Object, output: str | None) -> None:
    if output is None:
        emit(f"{made['status']['token']}\n")
    elif output == "name":
        emit(as_names([made], _PREFIX))
    else:
        emit(in_format(made, output))


def _table(items: list[Object]) -> str:
    rows = [
        [
            name_of(one),
            one["status"]["user"],
            one["status"].get("expirationTimestamp", "never"),
            one["metadata"]["creationTimestamp"],
        ]
        for one in items
    ]
    return as_rows(_COLUMNS, rows)
