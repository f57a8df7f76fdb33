"""The verbs about the program itself: version, completion."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from clusterling.cli.output import emit, in_format, output_option
from clusterling.version import KUBERNETES, __version__

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    "version",
    epilog="""\b
Examples:
  clusterling version
  clusterling version -o json
""",
)
@output_option("text", ("text", "json", "yaml"))
def version_command(output: str) -> None:
    """Print the versions of Clusterling and of the Kubernetes API it serves."""
    known = {"clusterling": __version__, "kubernetes": KUBERNETES}
    if output == "text":
        emit(f"clusterling {__version__}, serving the API of Kubernetes {KUBERNETES}\n")
    else:
        emit(in_format(known, output))


@click.command(
    "completion",
    epilog="""\b
Examples:
  source <(clusterling completion bash)                  # for this shell; in ~/.bashrc for all
  clusterling completion zsh > "${fpath[1]}/_clusterling"
  clusterling completion fish > ~/.config/fish/completions/clusterling.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> None:
    """Print what makes SHELL complete verbs, flags and names of clusters."""
    from clusterling.cli.program import program

    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    source = found(program, {}, "clusterling", "_CLUSTERLING_COMPLETE").source_vars()
    emit(found.source_template % source)
    emit("\n")
