"""The program: its verbs by name, and the one place where whatever goes wrong becomes a line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click
from typing_extensions import override

from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import complain
from clusterling.version import __version__

# verb → (module, what the list of verbs says). The module has the command under the verb's name, `-` as `_`.
VERBS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve", "Run the server."),
    "dev": ("dev", "Run a command against a throwaway server and cluster."),
    "create": ("clusters", "Create a logical cluster."),
    "list": ("clusters", "List logical clusters."),
    "get": ("clusters", "Show logical clusters by name."),
    "delete": ("clusters", "Delete logical clusters and all they hold."),
    "suspend": ("clusters", "Have logical clusters refuse requests."),
    "resume": ("clusters", "Have suspended logical clusters serve again."),
    "renew": ("clusters", "Have the time of clusters with a ttl count anew."),
    "kubeconfig": ("clusters", "Print a kubeconfig for a logical cluster."),
    "quota": ("quota", "Show and change what a cluster may hold and do."),
    "token": ("token", "Issue, list, rotate and revoke a cluster's tokens."),
    "connect": ("connect", "Put a logical cluster into your kubeconfig."),
    "use": ("connect", "Switch your kubeconfig to a logical cluster."),
    "disconnect": ("connect", "Switch your kubeconfig back."),
    "explain-deletion": ("explain_deletion", "Say why an object is not deleted."),
    "check-server": ("check_server", "Check any Kubernetes API for what clients assume of it."),
    "doctor": ("doctor", "Look at an installation, and say what is not well."),
    "store": ("store", "Check, count, compact and copy stores."),
    "version": ("about", "Print the versions of Clusterling and its API."),
    "completion": ("about", "Print shell completion."),
}
ALIASES: Final = {"ls": "list"}

EPILOG: Final = """\b
Begin with:
  clusterling serve                                      a server, with its data in ./.clusterling
  clusterling create team-a --kubeconfig-out team-a.yaml a cluster of its own
  kubectl --kubeconfig team-a.yaml get namespaces        kubectl, as with any cluster
or, for one command and no trace of it:
  clusterling dev -- kubectl get namespaces
"""


class _Verbs(click.Group):
    """A group that imports a verb's module only when the verb is used."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        module = importlib.import_module(f"clusterling.cli.{VERBS[name][0]}")
        command = getattr(module, f"{name.replace('-', '_')}_command")
        assert isinstance(command, click.Command), "a verb's module has a command for it"
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = [*VERBS, *ALIASES]
        if args[0] not in known:
            from difflib import get_close_matches

            for meant in get_close_matches(args[0], known, n=1):
                raise click.UsageError(f"No such command '{args[0]}'. Did you mean {meant}?", ctx)
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        aliases = {name: alias for alias, name in ALIASES.items()}
        rows = [
            (f"{verb}, {aliases[verb]}" if verb in aliases else verb, text)
            for verb, (_, text) in VERBS.items()
        ]
        with formatter.section("Verbs"):
            formatter.write_dl(rows)


@click.group(
    cls=_Verbs,
    name="clusterling",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
    subcommand_metavar="VERB [ARGS]…",
)
@click.version_option(__version__, message="clusterling %(version)s", help="Show the version and exit.")
def program() -> None:
    """Thousands of isolated Kubernetes APIs from one process.

    Each logical cluster is a Kubernetes API of its own: kubectl, helm and operators work with it as with any other.
    It has no nodes, costs a few kilobytes, and is there as soon as it is asked for.
    """


def run(arguments: Sequence[str]) -> int:
    """Runs the program and returns its exit code."""
    try:
        code = program.main(list(arguments), prog_name="clusterling", standalone_mode=False)
    except CliError as error:
        complain(error.message, error.hint)
        return error.code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "clusterling"
        complain(error.format_message().rstrip("."), f"see {path} --help")
        return Exit.USAGE
    except click.ClickException as error:
        complain(error.format_message().rstrip("."))
        return Exit.FAILED
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # Whoever reads our output has enough (`clusterling list | head -1`). Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except OSError as error:
        where = f" {error.filename}:" if error.filename else ""
        complain(f"{where} {error.strerror or error}".strip())
        return Exit.FAILED
    return code if isinstance(code, int) else Exit.OK
