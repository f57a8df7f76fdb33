"""`connect`, `use` and `disconnect`: logical clusters as contexts of the user's own kubeconfig."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import click

from clusterling.cli import kubeconfigs
from clusterling.cli.clusters import complete_names, server_options
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import as_yaml, quiet_option, say
from clusterling.cli.remote import Admin
from clusterling.cli.target import write_private
from clusterling.machinery.meta import Object


@click.command(
    "connect",
    context_settings={"allow_interspersed_args": True},
    epilog="""\b
Examples:
  clusterling connect team-a && kubectl get namespaces
  clusterling connect team-a --no-switch
  clusterling connect team-a -- kubectl get namespaces
""",
)
@click.argument("name", shell_complete=complete_names)
@click.option("--no-switch", is_flag=True, help="Leave the context in use as it is.")
@server_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD [ARGS]...]")
def connect_command(
    *,
    name: str,
    no_switch: bool,
    command: tuple[str, ...],
    admin: Admin,
) -> int:
    """Put the logical cluster NAME into your kubeconfig and switch to it.

    With CMD, run that with a kubeconfig of its own instead, and exit with its code; the credential ends with it.
    """
    config = admin.kubeconfig(name)
    if command:
        try:
            return _run(command, config)
        finally:
            from clusterling.tenancy.authentication.tokens import token_hash, unnamed

            admin.revoke_token(name, unnamed(token_hash(config["users"][0]["user"]["token"])))
    context = config["current-context"]
    paths = kubeconfigs.files()
    with kubeconfigs.locked(paths) as found:
        found.merge(config)
        if not no_switch:
            _switch(found, paths, context)
        found.write()
    say(f"context {context} is in {os.pathsep.join(map(str, paths))}")
    if not no_switch:
        say("try:  kubectl get namespaces\nback: clusterling disconnect")
    return 0


def _run(command: tuple[str, ...], config: Object) -> int:
    with tempfile.TemporaryDirectory(prefix="clusterling-connect-") as directory:
        path = Path(directory, "kubeconfig")
        write_private(path, as_yaml(config))
        try:
            done = subprocess.run(command, env={**os.environ, "KUBECONFIG": str(path)}, check=False)  # noqa: S603 - to run what the caller names is what this is for
        except FileNotFoundError as error:
            raise CliError(f"{command[0]}: command not found", code=127) from error
        except PermissionError as error:
            raise CliError(f"{command[0]}: permission denied", code=126) from error
    return 128 - done.returncode if done.returncode < 0 else done.returncode


def _previous(paths: list[Path]) -> Path:
    """Where the context is remembered that was in use before."""
    return paths[0].with_name(f"{paths[0].name}.clusterling-previous")


def _switch(found: kubeconfigs.Kubeconfigs, paths: list[Path], context: str) -> None:
    if found.current != context:
        write_private(_previous(paths), f"{found.current}\n")
        found.switch(context)


def _go_back(*, only_from_ours: bool) -> None:
    paths = kubeconfigs.files()
    with kubeconfigs.locked(paths) as found:
        contexts = found.contexts()
        current = found.current
        if only_from_ours and not _is_ours(current, contexts.get(current, "")):
            say(f"the context in use is {current or 'none'}: it is no logical cluster's")
            return
        memory = _previous(paths)
        before = memory.read_text().strip() if memory.exists() else ""
        if before and before not in contexts:
            say(f"there is no context {before} any more")
            before = ""
        if not (before or only_from_ours):
            raise CliError("there was no context before this one", code=Exit.NOT_FOUND)
        _switch(found, paths, before)
        found.write()
    say(f"the context in use is {before or 'none'}")


def _is_ours(context: str, server: str) -> bool:
    return context.startswith("clusterling-") and "/clusters/" in server


@click.command(
    "use",
    epilog="""\b
Examples:
  clusterling use team-a
  clusterling use -
""",
)
@click.argument("name")
@quiet_option
def use_command(*, name: str, quiet: bool) -> None:
    """Switch your kubeconfig to the logical cluster NAME, or with - to the context that was in use before."""
    if name == "-":
        _go_back(only_from_ours=False)
        return
    paths = kubeconfigs.files()
    with kubeconfigs.locked(paths) as found:
        ours = {one: server for one, server in found.contexts().items() if _is_ours(one, server)}
        named = [
            one for one, server in ours.items() if one == name or server.rpartition("/clusters/")[2] == name
        ]
        if not named:
            raise CliError(
                f"no context of your kubeconfig is of a logical cluster {name}",
                f"try `clusterling connect {name}`",
                Exit.NOT_FOUND,
            )
        if len(named) > 1:
            raise CliError(
                f"{name} is meant by several contexts: {', '.join(sorted(named))}", "name one of them"
            )
        _switch(found, paths, named[0])
        found.write()
    say(f"the context in use is {named[0]}")


@click.command(
    "disconnect",
    epilog="""\b
Examples:
  clusterling disconnect
""",
)
@quiet_option
def disconnect_command(*, quiet: bool) -> None:
    """Switch your kubeconfig back to the context that was in use before a logical cluster's."""
    _go_back(only_from_ours=True)
