"""`store`: what an operator does to a whole store, without a server: check, stats, compact, copy.

Each works on SQLite, PostgreSQL and etcd alike. All but `compact` of SQLite may be used while servers run.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import click

from clusterling.cli.datadir import DataDirectory
from clusterling.cli.errors import CliError, Exit
from clusterling.cli.output import as_rows, emit, in_format, output_option, quiet_option, say
from clusterling.cli.target import DATA_DIR

if TYPE_CHECKING:
    from clusterling.storage.bulk import Finding, Snapshot
    from clusterling.tenancy.contents import Summary

_F = TypeVar("_F", bound=Callable[..., Any])

_FORMATS: Final = ("table", "json", "yaml")
_STEPS: Final = 50  # In which history is forgotten: after each one, progress is told.
_BAR: Final = 30
_FINDINGS_MAX: Final = 1000  # A store that is wrong all over says so often enough.
_TELL_EVERY_S: Final = 0.1
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:[0-9]+[smhd])+")


@click.group(
    "store",
    epilog="""\b
Examples:
  clusterling store check
  clusterling store stats --store postgres://clusterling@db.example.com/clusterling
  clusterling store compact --data-dir /var/lib/clusterling
  clusterling store copy --from /var/lib/clusterling --to postgres://clusterling@db.example.com/clusterling
""",
)
def store_command() -> None:
    """Check, count, compact and copy stores of any kind."""


def _place(command: _F) -> _F:
    """The flags that name a store, as `serve` has them."""
    for option in (
        click.option(
            "--store-password-file",
            "password_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            envvar="CLUSTERLING_STORE_PASSWORD_FILE",
            metavar="FILE",
            help="The store's password, on the file's first line; or set CLUSTERLING_STORE_PASSWORD.",
        ),
        click.option(
            "--store",
            "url",
            default="",
            envvar="CLUSTERLING_STORE",
            metavar="URL",
            help="The store: postgres://USER@HOST/DATABASE, etcd://HOST:PORT,… or sqlite:///PATH.",
        ),
        click.option(
            "--data-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=DATA_DIR,
            show_default=True,
            envvar="CLUSTERLING_DATA_DIR",
            help="Without --store: the store in a server's data directory.",
        ),
    ):
        command = option(command)
    return command


def _resolved(url: str, data_dir: Path) -> str:
    if url:
        return url
    directory = DataDirectory(data_dir)
    directory.check_format()
    return file_url(directory.database)


def file_url(path: Path) -> str:
    """The URL of a store that is a file."""
    return f"sqlite://{quote(str(path))}"


def password_of(file: Path | None, variable: str) -> str | None:
    """From the file, else from the environment. Raises click.UsageError."""
    if file is None:
        return os.environ.get(variable)
    try:
        return (file.read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file}: {error}") from error


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Runs a verb to its end; what storage raises becomes a line."""
    from clusterling.cli import logs
    from clusterling.cli.serve import run_loop
    from clusterling.storage.store import StorageError

    logs.configure("error")
    try:
        return int(run_loop(work))
    except StorageError as error:
        raise CliError(str(error)) from error


class _Bar:
    """How far something has come, in a line that is written over; silent where nobody looks."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._last = 0.0
        self._phase = ""
        self._width = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        ended = done >= total
        if not self._shown or (phase == self._phase and not ended and now - self._last < _TELL_EVERY_S):
            return
        if phase != self._phase and self._phase:
            click.echo(err=True)
        self._last, self._phase = now, phase
        part = min(1.0, done / total) if total else 1.0
        filled = int(part * _BAR)
        line = f"{phase:<10} [{'#' * filled}{'.' * (_BAR - filled)}] {part:4.0%}  {done:,} of {total:,}"
        click.echo(f"\r{line:<{self._width}}", err=True, nl=False)
        self._width = len(line)

    def close(self) -> None:
        if self._phase:
            click.echo(err=True)
            self._phase = ""


def _bar(output: str, *, quiet: bool) -> _Bar:
    return _Bar(shown=sys.stderr.isatty() and not quiet and output == "table")


def _emit(output: str, document: object, text: str) -> None:
    emit(text if output == "table" else in_format(document, output))


# check


@store_command.command(
    "check",
    epilog="""\b
Examples:
  clusterling store check
  clusterling store check --data-dir /var/lib/clusterling -o json
  clusterling store check --store etcd://127.0.0.1:2379/prod
""",
)
@_place
@output_option("table", _FORMATS)
@quiet_option
def check_command(*, url: str, data_dir: Path, password_file: Path | None, output: str, quiet: bool) -> int:
    """Look through everything a store holds, and print what is not as it must be.

    Nothing is changed; servers may be at work on the store. Exits with 1 if anything was found.
    """
    where = _resolved(url, data_dir)
    password = password_of(password_file, "CLUSTERLING_STORE_PASSWORD")
    return _run(_check(where, password, output, _bar(output, quiet=quiet)))


async def _check(url: str, password: str | None, output: str, bar: _Bar) -> int:
    from clusterling.storage import bulk
    from clusterling.tenancy import contents

    findings: list[Finding] = []
    async with bulk.snapshot(url, password=password) as snapshot:
        records = await snapshot.count()
        check = contents.check(snapshot, lambda done, total: bar("checking", done, total))
        async with aclosing(check):
            async for finding in check:
                findings.append(finding)
                if len(findings) == _FINDINGS_MAX:
                    break
        bar.close()
        document = {
            "store": snapshot.address,
            "revision": snapshot.head,
            "records": records,
            "findings": [{"where": one.where, "kind": one.kind, "what": one.what} for one in findings],
        }
    text = as_rows(("kind", "where", "what"), [(one.kind, one.where, one.what) for one in findings])
    _emit(output, document, text if findings else "")
    number = (
        "no"
        if not findings
        else f"{len(findings)} or more"
        if len(findings) == _FINDINGS_MAX
        else len(findings)
    )
    say(f"{number} findings in {records:,} records at revision {document['revision']}")
    return Exit.FAILED if findings else Exit.OK


# stats


@store_command.command(
    "stats",
    epilog="""\b
Examples:
  clusterling store stats
  clusterling store stats --top 50 --store postgres://clusterling@db.example.com/clusterling
  clusterling store stats -o json
""",
)
@_place
@click.option(
    "--top",
    type=click.IntRange(0, 100_000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many clusters to list, the largest first; as many kinds.",
)
@output_option("table", _FORMATS)
@quiet_option
def stats_command(
    *, url: str, data_dir: Path, password_file: Path | None, top: int, output: str, quiet: bool
) -> int:
    """Count what a store holds: objects and bytes by cluster and kind, history, and space on disk."""
    where = _resolved(url, data_dir)
    password = password_of(password_file, "CLUSTERLING_STORE_PASSWORD")
    return _run(_stats(where, password, top, output, _bar(output, quiet=quiet)))


async def _stats(url: str, password: str | None, top: int, output: str, bar: _Bar) -> int:
    from clusterling.storage import bulk
    from clusterling.tenancy import contents

    async with bulk.snapshot(url, password=password) as snapshot:
        summary = await contents.summarize(snapshot, top, lambda done, total: bar("counting", done, total))
        bar.close()
        document = await _figures(snapshot, summary)
    clusters = [(one.name or "<unknown>", one.id, one.objects, _size(one.bytes)) for one in summary.clusters]
    kinds = [(one.name, one.objects, _size(one.bytes)) for one in summary.kinds[:top]]
    facts = [(name, _fact(name, value)) for name, value in document.items() if not isinstance(value, list)]
    text = "\n".join(
        (
            as_rows(("store", "value"), [(name, value) for name, value in facts]),
            as_rows(("cluster", "id", "objects", "size"), [*clusters]),
            as_rows(("kind", "records", "size"), [*kinds]),
        )
    )
    _emit(output, document, text)
    return Exit.OK


async def _figures(snapshot: Snapshot, summary: Summary) -> dict[str, Any]:
    figures = await snapshot.figures()
    return {
        "store": snapshot.address,
        "id": snapshot.identity.id,
        "epoch": snapshot.identity.epoch,
        "head": snapshot.head,
        "oldest": figures.oldest,
        "logRows": figures.log_rows,
        "diskBytes": figures.disk_bytes,
        "freeBytes": figures.free_bytes,
        "records": summary.records,
        "objects": summary.objects,
        "bytes": summary.bytes,
        "clusters": summary.cluster_count,
        "largest": [
            {"name": one.name, "id": one.id, "objects": one.objects, "bytes": one.bytes}
            for one in summary.clusters
        ],
        "kinds": [{"kind": one.name, "records": one.objects, "bytes": one.bytes} for one in summary.kinds],
    }


def _fact(name: str, value: object) -> object:
    if value is None:
        return "unknown"
    return _size(value) if isinstance(value, int) and name.lower().endswith("bytes") else value


def _size(count: int) -> str:
    """Bytes for people: `17.3 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


# compact


@store_command.command(
    "compact",
    epilog="""\b
Examples:
  clusterling store compact
  clusterling store compact --older-than 10m --store etcd://127.0.0.1:2379/prod
  clusterling store compact --revision 123456 --no-reclaim
""",
)
@_place
@click.option(
    "--revision",
    type=click.IntRange(1),
    metavar="N",
    help="Forget what is older than this revision. Without it: all history.",
)
@click.option(
    "--older-than",
    metavar="AGE",
    help="Forget what is older than this, as in 90s, 10m or 1h30m, as far as servers have noted when was what.",
)
@click.option(
    "--no-reclaim",
    is_flag=True,
    help="Leave freed space to the store, instead of giving it back to the disk.",
)
@output_option("table", _FORMATS)
@quiet_option
def compact_command(
    *,
    url: str,
    data_dir: Path,
    password_file: Path | None,
    revision: int | None,
    older_than: str | None,
    no_reclaim: bool,
    output: str,
    quiet: bool,
) -> int:
    """Forget a store's history in small steps, and give the space back to the disk.

    Objects stay; whoever watches from before that lists again. Servers do this by themselves as they go: this is
    for a store that nobody serves, or that is to become small at once.
    """
    if revision is not None and older_than is not None:
        raise click.UsageError("--revision and --older-than exclude each other")
    age_s = None if older_than is None else _seconds(older_than)
    where = _resolved(url, data_dir)
    password = password_of(password_file, "CLUSTERLING_STORE_PASSWORD")
    bar = _bar(output, quiet=quiet)
    return _run(_compact(where, password, revision, age_s, output, bar, reclaim=not no_reclaim))


def _seconds(text: str) -> int:
    """Raises click.UsageError."""
    if not _DURATION.fullmatch(text):
        raise click.UsageError(f"--older-than {text}: this is no age as in 90s, 10m or 1h30m")
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)([smhd])", text))


async def _compact(
    url: str,
    password: str | None,
    revision: int | None,
    age_s: int | None,
    output: str,
    bar: _Bar,
    *,
    reclaim: bool,
) -> int:
    from clusterling.controllers import history
    from clusterling.storage import bulk
    from clusterling.storage.opening import open_store

    async with bulk.snapshot(url, password=password) as snapshot:
        before = await snapshot.figures()
        horizon = min(revision or snapshot.head, snapshot.head)
    async with open_store(url, password=password) as store:
        if age_s is not None:
            horizon = await history.revision_at(store, time.time() - age_s)
            if not horizon:
                say("no server has noted what the store was so long ago: nothing is forgotten")
        start = min(before.oldest, horizon)
        steps = min(_STEPS, horizon - start)
        for step in range(1, steps + 1):
            await store.compact(start + (horizon - start) * step // steps)
            bar("compacting", step, steps)
    if reclaim:
        await bulk.reclaim(url, password=password)
    bar.close()
    async with bulk.snapshot(url, password=password) as snapshot:
        after = await snapshot.figures()
        address = snapshot.address
    document = {
        "store": address,
        "oldest": after.oldest,
        "oldestBefore": before.oldest,
        "diskBytes": after.disk_bytes,
        "diskBytesBefore": before.disk_bytes,
        "logRows": after.log_rows,
        "logRowsBefore": before.log_rows,
    }
    rows = [
        (what, _fact(key, document[f"{key}Before"]), _fact(key, document[key]))
        for what, key in (("oldest revision", "oldest"), ("writes kept", "logRows"), ("on disk", "diskBytes"))
    ]
    _emit(output, document, as_rows(("store", "before", "after"), [*rows]))
    return Exit.OK


# copy


@store_command.command(
    "copy",
    epilog="""\b
Examples:
  clusterling store copy --from /var/lib/clusterling --to postgres://clusterling@db.example.com/clusterling
  clusterling store copy --from etcd://127.0.0.1:2379/prod --to sqlite:///backup/state.db
  CLUSTERLING_TO_PASSWORD=… clusterling store copy --from .clusterling --to etcds://user@etcd.example.com/prod
""",
)
@click.option(
    "--from", "source", required=True, metavar="URL|DIR", help="A store, or a server's data directory."
)
@click.option(
    "--to", "target", required=True, metavar="URL|DIR", help="Where the copy is to be; must be empty."
)
@click.option(
    "--from-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_FROM_PASSWORD_FILE",
    metavar="FILE",
    help="The source's password, on the file's first line; or set CLUSTERLING_FROM_PASSWORD.",
)
@click.option(
    "--to-password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CLUSTERLING_TO_PASSWORD_FILE",
    metavar="FILE",
    help="The target's password, on the file's first line; or set CLUSTERLING_TO_PASSWORD.",
)
@output_option("table", _FORMATS)
@quiet_option
def copy_command(
    *,
    source: str,
    target: str,
    from_password_file: Path | None,
    to_password_file: Path | None,
    output: str,
    quiet: bool,
) -> int:
    """Copy a store, as it is at one revision, into an empty one of any kind, and verify the copy.

    The copy's revisions go on far above the source's, so that clients may go on with it: what they remember is
    older, never something else. A copy that is cut short is no store; begun again, it starts over.
    """
    passwords = (
        password_of(from_password_file, "CLUSTERLING_FROM_PASSWORD"),
        password_of(to_password_file, "CLUSTERLING_TO_PASSWORD"),
    )
    os.umask(0o077)
    return _run(_copy(_url_of(source), _url_of(target), passwords, output, _bar(output, quiet=quiet)))


def _url_of(place: str) -> str:
    """A URL stays; anything else is a data directory."""
    return place if "://" in place else file_url(DataDirectory(Path(place)).database)


async def _copy(
    source: str, target: str, passwords: tuple[str | None, str | None], output: str, bar: _Bar
) -> int:
    from clusterling.storage import bulk, copying

    async with (
        bulk.snapshot(source, password=passwords[0]) as snapshot,
        bulk.vessel(target, password=passwords[1]) as vessel,
    ):
        if await snapshot.served():
            say(f"note: a server is at work on {snapshot.address}: what it writes from now on is not copied")
        try:
            done = await copying.copy(snapshot, vessel, bar, now=datetime.now(UTC))
        finally:
            bar.close()
    document = {
        "from": snapshot.address,
        "to": vessel.address,
        "records": done.records,
        "bytes": done.bytes,
        "digest": done.digest,
        "revision": done.revision,
        "head": done.head,
        "id": done.identity.id,
        "epoch": done.identity.epoch,
    }
    rows = [(name, _fact(name, value)) for name, value in document.items()]
    _emit(output, document, as_rows(("copied", "value"), [*rows]))
    return Exit.OK
