"""`check-server`: runs the rows of `clusterling.conformity` against any Kubernetes API, and prints what came of them."""

from __future__ import annotations

import json
import os
import ssl
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import as_json, emit, quiet_option, say, shows_colour, timeout_option
from clusterling.cli.target import Target, read_kubeconfig

if TYPE_CHECKING:
    from clusterling.conformity import Report, Result, Row, Wire
    from clusterling.machinery.meta import Object

_COLOURS: Final = {"pass": "green", "fail": "red", "does not apply": "yellow"}
_LABELS: Final = {"pass": "pass", "fail": "FAIL", "does not apply": "n/a"}


@click.command(
    "check-server",
    epilog="""\b
Examples:
  clusterling check-server                               the cluster that kubectl speaks with
  clusterling check-server --kubeconfig team-a.yaml --only A1,C*
  clusterling check-server https://10.0.0.1:6443 --token-file token --ca ca.crt -o json
""",
)
@click.argument("url", required=False, default="")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The kubeconfig whose current context to use.  [default, without URL: $KUBECONFIG, ~/.kube/config]",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_TOKEN_FILE",
    metavar="FILE",
    help="A bearer token, on the file's first line.",
)
@click.option(
    "--ca",
    "ca_file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_CA",
    metavar="FILE",
    help="Certificates to trust, PEM.",
)
@click.option("--insecure-skip-tls-verify", "insecure", is_flag=True, help="Trust any certificate.")
@click.option("--only", default="", metavar="ROWS", help="Rows by id, with * for a section, as A1,C*.")
@timeout_option(180.0, "How long all checks may take.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "json", "markdown")),
    default="table",
    show_default=True,
    help="Format of the output.",
)
@click.option("--json", "output", flag_value="json", help="The same as -o json.")
@click.option(
    "--beside",
    metavar="NAME=FILE",
    default="",
    help="With -o markdown: a report of another server, as -o json printed it, in a column of its own.",
)
@click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    envvar="CLUSTERLING_COLOR",
    help="Colours of the table; auto heeds NO_COLOR.",
)
@quiet_option
def check_server_command(
    *,
    url: str,
    kubeconfig: Path | None,
    token_file: Path | None,
    ca_file: Path | None,
    insecure: bool,
    only: str,
    timeout_s: float,
    output: str,
    beside: str,
    color: str,
    quiet: bool,
) -> int:
    """Check the Kubernetes API at URL for what clients assume of it.

    Any server will do: kube-apiserver, a logical cluster, something else. The checks work in a namespace and custom kinds
    of their own, which they remove; they need credentials of an administrator. Exits with 1 if a row fails.
    """
    from clusterling.conformity import Unreachable, check_server, chosen

    try:
        rows = chosen(only)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    other = _other_report(beside)
    target = _target(url, kubeconfig, token_file, ca_file, insecure)
    coloured = color == "always" or (color == "auto" and shows_colour(sys.stdout))

    def show(result: Result) -> None:
        emit(_lines(result, coloured))

    try:
        wire = _wire(target)
        report = check_server(wire, rows, timeout_s, show if output == "table" else lambda _: None)
    except Unreachable as error:
        raise CliError(f"{target.server}: {error}", "name its CA with --ca, or a kubeconfig") from error
    return _conclude(report, rows, output, other)


def _conclude(report: Report, rows: list[Row], output: str, other: tuple[str, Object] | None) -> int:
    from clusterling.conformity import Outcome, as_document, as_page

    if output == "json":
        emit(as_json(as_document(report)))
    elif output == "markdown":
        emit(as_page(report, other))
    failed, spared = report.count(Outcome.FAIL), report.count(Outcome.DOES_NOT_APPLY)
    count = f"{len(rows)} row{'' if len(rows) == 1 else 's'}"
    say(f"{count} on {report.server}: {failed} failed, {spared} did not apply")
    for one in report.left:
        say(f"left behind: {one}")
    return Exit.FAILED if failed else Exit.OK


def _lines(result: Result, coloured: bool) -> str:
    """Two lines: what is assumed, and below it what was seen."""
    outcome = str(result.outcome)
    label = _LABELS[outcome].ljust(4)
    if coloured:
        label = click.style(label, fg=_COLOURS[outcome], bold=outcome == "fail")
    return f"{result.row.id:4} {label} {result.row.assumes}\n{'':10}{result.seen}\n"


def _target(
    url: str, kubeconfig: Path | None, token_file: Path | None, ca_file: Path | None, insecure: bool
) -> Target:
    """What flags say goes before what a kubeconfig says. With a URL, only a kubeconfig named by flag is read: credentials
    must not go to a server that they are not for."""
    if kubeconfig is None and not url:
        # kubectl's list of files: the first one, whose current context counts there too.
        named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        kubeconfig = Path(named or "~/.kube/config")
    if kubeconfig is not None:
        found = read_kubeconfig(kubeconfig.expanduser())
    else:
        found = Target(server=url, token="", ca_pem="", source="the command line")
    return Target(
        server=url or found.server,
        token=(token_file.read_text().splitlines() or [""])[0].strip() if token_file else found.token,
        ca_pem=ca_file.read_text() if ca_file else found.ca_pem,
        source=found.source,
        server_name=found.server_name,
        verify=found.verify and not insecure,
        client_pem="" if token_file else found.client_pem,
    )


def _wire(target: Target) -> Wire:
    from clusterling.conformity import Wire

    try:
        context = ssl.create_default_context(cadata=target.ca_pem or None)
        if not target.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if target.client_pem:
            # The ssl module takes a certificate and its key from a file only.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(target.client_pem)
                file.flush()
                context.load_cert_chain(file.name)
        return Wire(target.server, token=target.token, context=context, server_name=target.server_name)
    except (ValueError, ssl.SSLError) as error:
        raise CliError(f"{target.source}: {error}") from error


def _other_report(beside: str) -> tuple[str, Object] | None:
    if not beside:
        return None
    name, _, path = beside.partition("=")
    try:
        document = json.loads(Path(path).read_text())
        assert all("id" in row and "seen" in row and "outcome" in row for row in document["rows"])
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise click.UsageError(f"--beside: {path} is no report as -o json prints it") from error
    return name, document
