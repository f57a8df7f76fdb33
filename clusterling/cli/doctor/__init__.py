"""`doctor`: looks at an installation from inside and outside, and says what is not well and what to do about it.

Inside are the machine, the data directory and the store, which can be looked at with no server running; outside is the server,
as the kubeconfig reaches it. Nothing is changed.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from clusterling.cli.doctor.finding import Finding, Status, fail, skipped
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import emit, in_format, quiet_option, say, shows_colour, timeout_option
from clusterling.cli.target import DATA_DIR, read_kubeconfig

if TYPE_CHECKING:
    from clusterling.cli.target import Target

_COLOURS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red", Status.SKIPPED: None}


@click.command(
    "doctor",
    epilog="""\b
Examples:
  clusterling doctor
  clusterling doctor --data-dir /var/lib/clusterling --store postgres://clusterling@db.example.com/clusterling
  clusterling doctor --kubeconfig admin.kubeconfig       a server elsewhere, from outside alone
  clusterling doctor --local -o json                     while no server runs
""",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="CLUSTERLING_KUBECONFIG",
    help="A kubeconfig of `root`: only the server is looked at, from outside.",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    envvar="CLUSTERLING_DATA_DIR",
    help="A server's data directory.",
)
@click.option(
    "--store",
    "url",
    default="",
    envvar="CLUSTERLING_STORE",
    metavar="URL",
    help="The store, where it is not in the data directory, as for `serve`.",
)
@click.option(
    "--store-password-file",
    "password_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_STORE_PASSWORD_FILE",
    metavar="FILE",
    help="The store's password, on the file's first line; or set CLUSTERLING_STORE_PASSWORD.",
)
@click.option(
    "--tls-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_TLS_CERT",
    metavar="FILE",
    help="The certificate that the server was given, as for `serve`.",
)
@click.option(
    "--tls-key",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_TLS_KEY",
    metavar="FILE",
    help="Its key.",
)
@click.option("--local", is_flag=True, help="Look at this machine and the store alone, not at the server.")
@timeout_option(10.0, "How long to wait for each answer.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(("table", "json", "yaml")),
    default="table",
    show_default=True,
    help="Format of the output.",
)
@quiet_option
def doctor_command(
    *,
    kubeconfig: Path | None,
    data_dir: Path,
    url: str,
    password_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    local: bool,
    timeout_s: float,
    output: str,
    quiet: bool,
) -> int:
    """Look at an installation, and print what is not well and what to do.

    Exits with 1 if a check fails; what is only to be watched is a warning. With --quiet the table has only these.
    """
    if kubeconfig is not None and local:
        raise click.UsageError("--kubeconfig and --local exclude each other")
    found: list[Finding] = []
    seen: dict[str, int] = {}
    if kubeconfig is None:
        found += _inside(data_dir, url, password_file, (tls_cert, tls_key), seen)
    if not local:
        found += _outside(kubeconfig, data_dir, timeout_s, seen.get("head"))
    _print(found, output, quiet=quiet)
    count = {status: sum(one.status is status for one in found) for status in Status}
    say(f"{count[Status.FAIL]} failed, {count[Status.WARN]} to be watched, {count[Status.OK]} well")
    return Exit.FAILED if count[Status.FAIL] else Exit.OK


def _inside(
    data_dir: Path,
    url: str,
    password_file: Path | None,
    own: tuple[Path | None, Path | None],
    seen: dict[str, int],
) -> Iterator[Finding]:
    from clusterling.cli.datadir import DataDirectory
    from clusterling.cli.doctor import directory as directories
    from clusterling.cli.doctor import machine, store
    from clusterling.cli.store import file_url, password_of

    directory = DataDirectory(data_dir)
    yield from machine.checks(machine.holder(directory.path / "lock"))
    yield from directories.checks(directory, keeps_store=not url)
    certificate, key = own
    if certificate is not None and key is not None:
        yield from directories.certificates(
            certificate, key, None, "renew it: the server takes it up by itself"
        )
    if not url and not directory.database.exists():
        yield skipped("store", f"there is no {directory.database}")
        return
    secret = password_of(password_file, "CLUSTERLING_STORE_PASSWORD")
    yield from _run(store.checks(url or file_url(directory.database), secret, seen))


def _run(checks: AsyncIterator[Finding]) -> list[Finding]:
    from clusterling.cli.serve import run_loop

    async def all_of_them() -> list[Finding]:
        return [finding async for finding in checks]

    found: list[Finding] = run_loop(all_of_them())
    return found


def _outside(
    kubeconfig: Path | None, data_dir: Path, timeout_s: float, head: int | None
) -> Iterator[Finding]:
    from clusterling.cli.doctor import directory as directories
    from clusterling.cli.doctor import server, tenants
    from clusterling.cli.remote import Admin
    from clusterling.version import __version__

    target = _target(kubeconfig, data_dir)
    if isinstance(target, Finding):
        yield target
        return
    if kubeconfig is not None:
        yield directories.kubeconfig(target)
    of_all, replicas = server.replicas(target, timeout_s)
    for replica in replicas:
        yield from replica.findings
    yield from of_all
    if not any(replica.answers for replica in replicas):
        yield skipped("tenants", "the server cannot be asked")
        return
    admin = Admin(target, timeout_s)
    try:
        yield server.versions(admin.raw("/version"), replicas, __version__)
        yield from tenants.checks(admin)
    finally:
        admin.close()
    yield from server.figures([one for one in replicas if one.answers], head)


def _target(kubeconfig: Path | None, data_dir: Path) -> Target | Finding:
    try:
        return read_kubeconfig((kubeconfig or data_dir / "admin.kubeconfig").expanduser())
    except (CliError, OSError) as error:
        if kubeconfig is None:
            return skipped("server", "without a kubeconfig it cannot be asked")
        hint = getattr(error, "hint", "") or "name the kubeconfig of `root` with --kubeconfig"
        return fail("kubeconfig", str(error), hint)


def _worst(found: list[Finding]) -> Status:
    for status in (Status.FAIL, Status.WARN):
        if any(one.status is status for one in found):
            return status
    return Status.OK


def _print(found: list[Finding], output: str, *, quiet: bool) -> None:
    if output != "table":
        document: dict[str, Any] = {
            "status": str(_worst(found)),
            "checks": [
                {"check": one.check, "status": str(one.status), "found": one.found, "remedy": one.remedy}
                for one in found
            ],
        }
        emit(in_format(document, output))
        return
    colours = shows_colour(sys.stdout)
    shown = [one for one in found if not quiet or one.status in (Status.WARN, Status.FAIL)]
    width = max((len(one.check) for one in shown), default=0)
    for one in shown:
        label = f"{one.status:<7}"
        if colours:
            label = click.style(label, fg=_COLOURS[one.status], bold=one.status is Status.FAIL)
        emit(f"{label}  {one.check:<{width}}  {one.found}\n")
        if one.remedy:
            emit(f"{'':9}{'':{width}}  -> {one.remedy}\n")
