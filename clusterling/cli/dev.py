"""`dev`: a server and a cluster in memory for as long as one command runs, and no trace of either afterwards.

Whatever ends this process, three things clean up: its own `finally`; the kernel, which kills CMD when its parent dies
(PR_SET_PDEATHSIG); and the *reaper*, a shell in a session of its own that waits for the end of a pipe only we hold, then
kills what CMD left running and removes our directory. Nobody catches SIGKILL, but everybody's pipes are closed by it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import click

from clusterling.cli import logs
from clusterling.cli.errors import CliError
from clusterling.cli.output import as_yaml, emit, quiet_option, say
from clusterling.cli.serve import chosen_packs, run_loop
from clusterling.cli.target import write_private

# How long CMD may take to end once it was told to.
_GRACE_S: Final = 10.0

_PR_SET_PDEATHSIG: Final = 1

# Among signals, says that CMD has ended.
_ENDED: Final = 0

# Reads lines until we are gone; the last one is the process group to kill, or empty.
_REAPER: Final = """
trap '' HUP INT TERM
group=
while read -r line; do group=$line; done
if [ -n "$group" ]; then kill -s KILL -- "-$group"; fi
rm -rf -- "$1"
"""


@click.command(
    "dev",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  clusterling dev -- kubectl get namespaces
  clusterling dev -- sh -c 'kubectl apply -f crds/ && pytest'
  clusterling dev -- bash                                a shell with a cluster
  clusterling dev                                        prints a kubeconfig's path, until Ctrl-C
""",
)
@click.option(
    "--name",
    default="dev",
    show_default=True,
    metavar="NAME",
    envvar="CLUSTERLING_DEV_NAME",
    help="What the cluster is called.",
)
@click.option(
    "--packs",
    default="default",
    show_default=True,
    metavar="PACKS",
    envvar="CLUSTERLING_PACKS",
    help="Built-in kinds, as for serve.",
)
@quiet_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD [ARGS]...]")
def dev_command(*, name: str, packs: str, quiet: bool, command: tuple[str, ...]) -> int:
    """Run CMD against a throwaway server and cluster, and exit with its code.

    CMD finds the cluster by KUBECONFIG, and the clusterling verbs find the server. All of it is in memory, on a free
    port of 127.0.0.1, and gone when CMD ends.
    """
    logs.configure("error")
    code = run_loop(_dev(name, packs, command))
    assert isinstance(code, int), "a process ends with a number"
    return code


async def _dev(name: str, packs: str, command: Sequence[str]) -> int:
    with _Reaper() as reaper:
        async with _serving(name, packs, reaper.directory) as kubeconfig:
            if command:
                environment = {
                    **os.environ,
                    "KUBECONFIG": str(kubeconfig),
                    "CLUSTERLING_KUBECONFIG": str(reaper.directory / "root.kubeconfig"),
                }
                return await _run(command, environment, reaper)
            with _signals() as signals:
                emit(f"{kubeconfig}\n")
                say(f"try: kubectl --kubeconfig {kubeconfig} get namespaces\nCtrl-C ends it")
                await signals.get()
            return 0


@asynccontextmanager
async def _serving(name: str, packs: str, directory: Path) -> AsyncIterator[Path]:
    """A server with the cluster of that name; yields the path of its kubeconfig, with root's beside it."""
    from clusterling.machinery.errors import ApiError
    from clusterling.server import ApiServer
    from clusterling.storage import memory
    from clusterling.tenancy import pki

    made = pki.ephemeral(datetime.now(UTC))
    async with memory.open() as store:
        server = ApiServer(store, packs=chosen_packs(packs), ca_pem=made.ca_pem)
        async with server.running():
            await server.listen("127.0.0.1", 0, pki.server_context(made, directory))
            try:
                await server.clusters.create(name)
            except ApiError as error:
                raise CliError(f"cannot make the cluster {name}: {error.message}") from error
            for cluster, file in ((name, "kubeconfig"), ("root", "root.kubeconfig")):
                write_private(directory / file, as_yaml(await server.clusters.kubeconfig(cluster)))
            yield directory / "kubeconfig"


class _Reaper:
    """Our directory, and the process that removes it when we are gone."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.gettempdir(), f"clusterling-dev-{secrets.token_hex(8)}")

    def __enter__(self) -> Self:
        # First the one who removes, then what is to be removed.
        self._process = subprocess.Popen(  # noqa: S603 - the script is a constant, the directory an argument
            ["/bin/sh", "-c", _REAPER, "clusterling-reaper", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            text=True,
        )
        self.directory.mkdir(mode=0o700)
        return self

    def watch(self, group: int | None) -> None:
        """From now on this process group dies with us; None: nothing runs."""
        assert self._process.stdin is not None, "it was piped"
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{group or ''}\n")
            self._process.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        assert self._process.stdin is not None, "it was piped"
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


async def _run(command: Sequence[str], environment: dict[str, str], reaper: _Reaper) -> int:
    """Runs CMD to its end and returns the exit code that a shell would give."""
    # On a terminal CMD stays in our process group, or it could not read from it; elsewhere it gets one of its own, so
    # that signals reach all that it starts and nothing of it survives.
    apart = not sys.stdin.isatty()
    with _signals() as events:
        process = _start(command, environment, apart=apart)
        if apart:
            reaper.watch(process.pid)
        try:
            return await _wait(process, events, apart=apart)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            if apart:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                reaper.watch(None)


def _start(command: Sequence[str], environment: dict[str, str], *, apart: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - to run what the caller names is what this verb is for
            command,
            env=environment,
            process_group=0 if apart else None,
            preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - it makes one system call, and no thread of ours holds a lock it needs
        )
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]}: command not found", 127) from error
    except PermissionError as error:
        raise CommandError(f"{command[0]}: permission denied", 126) from error


class CommandError(CliError):
    """CMD could not be started; the code is a shell's for that."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def _dying_with(parent: int) -> Callable[[], None] | None:
    """What has the kernel kill the new process when its parent dies; None where the kernel does not offer that."""
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    libc = ctypes.CDLL(None)

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(137)

    return set_death_signal


async def _wait(process: subprocess.Popen[bytes], events: asyncio.Queue[int], *, apart: bool) -> int:
    """Waits for CMD, handing on what signals come; ends it by force where it does not heed them."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        process.wait()
        loop.call_soon_threadsafe(events.put_nowait, _ENDED)

    threading.Thread(target=wait, name="clusterling-dev-wait", daemon=True).start()
    timeout_s: float | None = None
    while True:
        try:
            number = await asyncio.wait_for(events.get(), timeout_s)
        except TimeoutError:
            number = signal.SIGKILL
        if number == _ENDED:
            code = process.wait()
            return 128 - code if code < 0 else code
        # The terminal has sent Ctrl-C to CMD as well.
        if apart or number != signal.SIGINT:
            _send(process, number, apart=apart)
            timeout_s = _GRACE_S


def _send(process: subprocess.Popen[bytes], number: int, *, apart: bool) -> None:
    with suppress(ProcessLookupError):
        if apart:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


@contextmanager
def _signals() -> Iterator[asyncio.Queue[int]]:
    """The signals that ask us to end, as they come."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[int] = asyncio.Queue()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, received.put_nowait, int(number))
    try:
        yield received
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
