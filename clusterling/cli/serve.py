"""`serve`: from flags, environment and a file to an ApiServer on a data directory, until a signal says stop."""

from __future__ import annotations

import gc
import ipaddress
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from clusterling.cli import logs, tracing
from clusterling.cli.datadir import DataDirectory
from clusterling.cli.errors import CliError
from clusterling.cli.output import emit, quiet_option, say
from clusterling.cli.target import DATA_DIR

if TYPE_CHECKING:
    import asyncio

    from opentelemetry.trace import TracerProvider

    from clusterling.cli.following import Followed
    from clusterling.registry.pack import Pack
    from clusterling.server import ApiServer
    from clusterling.services.addresses import Network
    from clusterling.storage.store import Store
    from clusterling.tenancy.quota import Quota

_CHECK_S: Final = 1.0

# Delay and spread: a replica gives load balancers time to look elsewhere, and its watches do not all come back at once.
LEAVE_REPLICA_S: Final = (5.0, 10.0)
LEAVE_ALONE_S: Final = (0.0, 1.0)

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

# 128 bits where they are written in hex.
TOKEN_CHARACTERS_MIN: Final = 32

# Requests under way hold more objects than Python's default lets be made between two looks for garbage, so that each look
# finds them all in use. Reference counts free what they leave, and what makes circles breaks them (`services/http.py`). Where all that was made
# stays, as when thousands of watches begin, each look takes up to 4 ms on a busy machine, and each second one, which is at what the one
# before has left, too, twice that; with 20,000 it was 11 to 30, with 5,000 a write takes at most 3 % more. All there is is looked at
# after some seven million, if it has grown by a quarter.
GARBAGE_THRESHOLDS: Final = (5_000, 0, 700)

# How long another thread waits for the interpreter while the loop is busy, where Python's default is 5 ms. The one that commits to SQLite
# asks for it several times in each commit, has it for some 50 µs, and everybody waits for the commit.
HANDOVER_S: Final = 0.000_1


@dataclass(frozen=True, slots=True)
class Config:
    """What `serve` was told. Hosts and ports are as in the flags; "" and None where nothing was said."""

    host: str
    port: int
    tls_cert: Path | None
    tls_key: Path | None
    tls_ca: Path | None
    tls_sans: tuple[str, ...]
    insecure_http: bool
    default_cluster: str
    packs: str
    external_url: str
    store: str = ""
    store_password: str | None = None
    admin_token: str = ""
    metrics: bool = True
    metrics_token: str = ""
    default_quota: str = ""
    limits: str = ""
    workers: int = 2
    trusted_proxies: str = ""
    proxy_protocol: bool = False
    clusters: Path | None = None
    shutdown_delay_s: float | None = None
    shutdown_spread_s: float | None = None

    def leave_s(self, *, shared: bool) -> tuple[float, float]:
        """For how long to serve on unready, and then to end watches: what was said, or what suits the store."""
        delay_s, spread_s = LEAVE_REPLICA_S if shared else LEAVE_ALONE_S
        return (
            delay_s if self.shutdown_delay_s is None else self.shutdown_delay_s,
            spread_s if self.shutdown_spread_s is None else self.shutdown_spread_s,
        )

    @property
    def reachable_host(self) -> str:
        return _reachable(self.host)

    @property
    def certificate_hosts(self) -> list[str]:
        """What the leaf is for, besides this machine's own names."""
        external = urlsplit(self.external_url).hostname if self.external_url else None
        return [*self.tls_sans, self.reachable_host, *([external] if external else [])]


def _reachable(host: str) -> str:
    """The host that a client on this machine can use: a wildcard address is none."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def _flag(flag: str, *names: str, **options: Any) -> Callable[[Any], Any]:
    """A flag with its variable."""
    return click.option(
        flag, *names, envvar="CLUSTERLING_" + flag.lstrip("-").replace("-", "_").upper(), **options
    )


def _read_config(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Makes a file's values the flags' defaults: so flags go over environment, and environment over file."""
    if value is None:
        return
    import yaml

    try:
        document = yaml.load(value.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except OSError as error:
        raise click.UsageError(f"{value}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{value} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return
    if not isinstance(document, dict):
        raise click.UsageError(f"{value} must be a map of flags' names to their values")
    known = {
        option.removeprefix("--"): parameter
        for parameter in ctx.command.params
        for option in parameter.opts
        if option.startswith("--") and option not in ("--config", "--help")
    }
    unknown = [str(key) for key in document if key not in known]
    if unknown:
        raise click.UsageError(
            f"{value}: {', '.join(unknown)} is no flag of serve; there are {', '.join(known)}"
        )
    ctx.default_map = {**(ctx.default_map or {}), **_by_parameter(document, known)}


def _by_parameter(document: Mapping[str, Any], known: Mapping[str, click.Parameter]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        parameter = known[key]
        if isinstance(value, list) and not parameter.multiple:
            value = ",".join(str(one) for one in value)  # noqa: PLW2901 - the same value, as a flag has it
        assert parameter.name is not None, "an option has a name"
        found[parameter.name] = value
    return found


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT`. Raises click.UsageError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise click.UsageError(f"--listen {text}: write an IPv6 address in brackets, as in [::1]:6443")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.UsageError(f"--listen {text}: this is not HOST:PORT, as in 127.0.0.1:6443")
    return host or "0.0.0.0", int(port)  # noqa: S104 - what ":PORT" means everywhere


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.command(
    "serve",
    epilog="""\b
Examples:
  clusterling serve
  clusterling serve --data-dir /var/lib/clusterling --listen 0.0.0.0:6443 --external-url https://api.example.com:6443
  clusterling serve --store 'postgres://clusterling@db.example.com/clusterling?sslmode=verify-full'
  clusterling serve --config /etc/clusterling.yaml
Every flag can be given as a variable (CLUSTERLING_DATA_DIR) or in the file of --config (data-dir: …);
a flag goes before the variable, the variable before the file.
""",
)
@_flag(
    "--config",
    type=_FILE,
    is_eager=True,
    expose_value=False,
    callback=_read_config,
    metavar="FILE",
    help="Read flags from this YAML file.",
)
@_flag(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    help="Where the server keeps its state, certificates and admin.kubeconfig.",
)
@_flag(
    "--store",
    default="",
    metavar="URL",
    help="Keep the state here, and share it with other replicas: postgres://USER@HOST/DATABASE or"
    " etcd://HOST:PORT,…. Without it: state.db in the data directory.",
)
@_flag(
    "--store-password-file",
    type=_FILE,
    metavar="FILE",
    help="The store's password, on the file's first line; or set CLUSTERLING_STORE_PASSWORD.",
)
@_flag(
    "--listen",
    default="127.0.0.1:6443",
    show_default=True,
    metavar="HOST:PORT",
    help="Port 0 takes a free one.",
)
@_flag(
    "--external-url",
    default="",
    metavar="URL",
    help="What clients are told, where it is not the address above.",
)
@_flag(
    "--tls-cert",
    type=_FILE,
    metavar="FILE",
    help="Serve with this certificate (PEM, with its chain) instead of one of the server's own.",
)
@_flag("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key.")
@_flag(
    "--tls-ca",
    type=_FILE,
    metavar="FILE",
    help="The CA of --tls-cert, for kubeconfigs. Without it clients trust what their system trusts.",
)
@_flag(
    "--tls-san",
    "tls_sans",
    multiple=True,
    metavar="HOST",
    help="Another name or address that the server's own certificate is for. May be repeated.",
)
@_flag(
    "--insecure-http", is_flag=True, help="Serve without TLS, on loopback only; kubectl sends no tokens then."
)
@_flag(
    "--default-cluster",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The logical cluster that is also served at /; empty for none.",
)
@_flag(
    "--clusters",
    type=_FILE,
    metavar="FILE",
    help="Have the LogicalClusters in this YAML file be there, and as it says; changes are taken over.",
)
@_flag(
    "--admin-token-file",
    type=_FILE,
    metavar="FILE",
    help="The administrator's token, on the file's first line, instead of one of the server's own.",
)
@_flag(
    "--metrics-token-file",
    type=_FILE,
    metavar="FILE",
    help="A token, on the file's first line, that lets scrapers have /metrics and nothing else.",
)
@_flag("--no-metrics", is_flag=True, help="Count nothing, and tell no metrics.")
@_flag(
    "--default-quota",
    default="",
    metavar="LIMITS",
    help="What clusters may hold and do that do not say otherwise, as in objects=10k,bytes=1Gi,soft.objects=8k.",
)
@_flag(
    "--limits",
    default="",
    metavar="LIMITS",
    help="How much may be in flight at once, where not as by default, as in tenant.lists=50,watches=20000;"
    " docs/reference/limits.md names all. 0 is no limit.",
)
@_flag(
    "--workers",
    type=click.IntRange(0, 64),
    default=2,
    show_default=True,
    metavar="COUNT",
    help="How many processes there may be for writes that would hold the server for long; started when there are such. 0: none.",
)
@_flag(
    "--trusted-proxies",
    default="",
    metavar="NETWORKS",
    help="Load balancers and proxies, as in 10.0.0.0/8,2001:db8::7: limits of an address are not theirs, but those of the"
    " clients that they name in X-Forwarded-For.",
)
@_flag(
    "--proxy-protocol",
    is_flag=True,
    help="Connections of --trusted-proxies begin with the PROXY protocol, version 1 or 2, as of those that pass TLS through.",
)
@_flag(
    "--packs",
    default="default",
    show_default=True,
    metavar="PACKS",
    help="Built-in kinds: none, default, all, or groups and group/resource with - to leave out, as in"
    " default,-events or core/configmaps,apiextensions.",
)
@_flag(
    "--shutdown-delay",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="On SIGTERM, serve on for so long while /readyz says no. Default 5 with --store, else 0.",
)
@_flag(
    "--shutdown-spread",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="Then end open watches over so long. Default 10 with --store, else 1.",
)
@_flag(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="warning",
    show_default=True,
    help="What is logged, to stderr.",
)
@_flag(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    default="text",
    show_default=True,
    help="How it is logged: a line an event either way.",
)
@_flag(
    "--tracing-endpoint",
    default="",
    metavar="URL",
    help="Send traces to this collector, by OTLP over HTTP, as in http://127.0.0.1:4318. OpenTelemetry's own"
    " variables (OTEL_EXPORTER_OTLP_ENDPOINT …) work as well.",
)
@_flag(
    "--tracing-sampling",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="How many requests to trace of those whose caller has not decided. Default OTEL_TRACES_SAMPLER, else 0.01.",
)
@quiet_option
def serve_command(
    *,
    data_dir: Path,
    store: str,
    store_password_file: Path | None,
    listen: str,
    external_url: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_sans: tuple[str, ...],
    insecure_http: bool,
    default_cluster: str,
    clusters: Path | None,
    admin_token_file: Path | None,
    metrics_token_file: Path | None,
    no_metrics: bool,
    default_quota: str,
    limits: str,
    workers: int,
    trusted_proxies: str,
    proxy_protocol: bool,
    packs: str,
    shutdown_delay: float | None,
    shutdown_spread: float | None,
    log_level: str,
    log_format: logs.Format,
    tracing_endpoint: str,
    tracing_sampling: float | None,
    quiet: bool,
) -> None:
    """Run the server in the foreground until it gets SIGTERM or SIGINT.

    Prints `clusterling ready: URL data=DIR` once it answers. DIR/admin.kubeconfig administers it.
    """
    if tracing_endpoint and (why := tracing.check_endpoint(tracing_endpoint)):
        raise click.UsageError(f"--tracing-endpoint {tracing_endpoint}: {why}")
    host, port = parse_listen(listen)
    config = Config(
        host=host,
        # Kubeconfigs need the port before the listener has it, where they cannot name the listener's host.
        port=port or (0 if host == _reachable(host) else _free_port(host)),
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_ca=tls_ca,
        tls_sans=tls_sans,
        insecure_http=insecure_http,
        default_cluster=default_cluster,
        packs=packs,
        external_url=external_url,
        store=store,
        store_password=_store_password(store_password_file),
        admin_token=_token("--admin-token-file", admin_token_file),
        metrics=not no_metrics,
        metrics_token=_token("--metrics-token-file", metrics_token_file),
        default_quota=default_quota,
        limits=limits,
        workers=workers,
        trusted_proxies=trusted_proxies,
        proxy_protocol=proxy_protocol,
        clusters=clusters,
        shutdown_delay_s=shutdown_delay,
        shutdown_spread_s=shutdown_spread,
    )
    _check(config)
    logs.configure(log_level, log_format)
    if log_format == "json":
        # Lines for people would be none for whoever reads these.
        click.get_current_context().params["quiet"] = True
    _raise_descriptors()
    # The database, its log and whatever else is made here: for nobody but us.
    os.umask(0o077)
    directory = DataDirectory(data_dir)
    directory.check_format()
    with tracing.tracing(tracing_endpoint, tracing_sampling) as provider:
        run_loop(_serve(config, directory, provider))


def _store_password(file: Path | None) -> str | None:
    """From the file, else from the environment. Raises click.UsageError."""
    if file is None:
        return os.environ.get("CLUSTERLING_STORE_PASSWORD")
    return _first_line("--store-password-file", file)


def _default_quota(text: str) -> Quota:
    from clusterling.tenancy.quota import parse_quota

    try:
        return parse_quota(text)
    except ValueError as error:
        raise CliError(f"--default-quota {error}", code=2) from error


def _limits(text: str) -> dict[str, int]:
    from clusterling.tenancy.limits import parse_limits

    try:
        return parse_limits(text)
    except ValueError as error:
        raise click.UsageError(f"--limits {text}: {error}") from error


def _trusted(text: str) -> Sequence[Network]:
    from clusterling.services.addresses import parse_networks

    try:
        return parse_networks(text)
    except ValueError as error:
        raise click.UsageError(f"--trusted-proxies {text}: {error}") from error


def _raise_descriptors() -> None:
    """As many open files as the system lets this process have, as Go's programs do: each connection is one."""
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _token(flag: str, file: Path | None) -> str:
    """The file's, "" where none is named. Raises click.UsageError where it is none to be let in by, or easily guessed."""
    if file is None:
        return ""
    token = _first_line(flag, file)
    if len(token) < TOKEN_CHARACTERS_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise click.UsageError(
            f"{flag} {file}: a token has {TOKEN_CHARACTERS_MIN} characters or more, of ASCII"
            " without blanks; as `openssl rand -hex 32` makes one"
        )
    return token


def _first_line(flag: str, file: Path) -> str:
    try:
        return (file.read_text().splitlines() or [""])[0]
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{flag} {file}: {error}") from error


def _check(config: Config) -> None:
    """What flags say together. Raises click.UsageError."""
    _default_quota(config.default_quota)
    _limits(config.limits)
    if config.proxy_protocol and not _trusted(config.trusted_proxies):
        raise click.UsageError("--proxy-protocol needs --trusted-proxies: nobody else is believed")
    from clusterling.machinery.names import is_dns1123_label

    if config.insecure_http and not is_loopback(config.host):
        raise click.UsageError(
            f"--insecure-http would send tokens in the clear over {config.host}; it is for loopback addresses only"
        )
    if bool(config.tls_cert) != bool(config.tls_key):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if config.insecure_http and config.tls_cert:
        raise click.UsageError("--insecure-http and --tls-cert exclude each other")
    if config.tls_ca and not config.tls_cert:
        raise click.UsageError("--tls-ca is the CA of --tls-cert")
    if config.external_url:
        parts = urlsplit(config.external_url)
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            raise click.UsageError(
                f"--external-url {config.external_url}: this is no URL as in https://api.example.com"
            )
    if config.default_cluster:
        problems = is_dns1123_label(config.default_cluster)
        if problems:
            raise click.UsageError(f"--default-cluster {config.default_cluster}: {'; '.join(problems)}")


def run_loop(main: Any) -> Any:
    """Runs a coroutine on uvloop where that installs, else on asyncio's own loop."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        with asyncio.Runner() as runner:
            return runner.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def chosen_packs(text: str) -> Sequence[Pack]:
    """The packs that `--packs` names. Raises click.UsageError."""
    from clusterling.packs import choose

    try:
        return tuple(choose(text))
    except ValueError as error:
        raise click.UsageError(f"--packs {text}: {error}") from error


async def _tls(config: Config, directory: DataDirectory, store: Store) -> tuple[ssl.SSLContext | None, bytes]:
    """The listener's context and the CA for kubeconfigs. Raises CliError."""
    from clusterling.storage.store import is_shared
    from clusterling.tenancy import pki

    if config.insecure_http:
        return None, b""
    if config.tls_cert is None or config.tls_key is None:
        try:
            if is_shared(store):
                from clusterling.tenancy import sharing

                made = await sharing.credentials(
                    store, directory.pki, datetime.now(UTC), config.certificate_hosts
                )
            else:
                made = pki.ensure(directory.pki, datetime.now(UTC), config.certificate_hosts)
        except (ValueError, OSError) as error:
            raise CliError(
                f"cannot use the certificates in {directory.pki}: {error}",
                "move it away, and new ones are made",
            ) from error
        context = pki.server_context_from_files(directory.pki / "tls.crt", directory.pki / "tls.key")
        return context, made.ca_pem
    for file in (config.tls_cert, config.tls_key, config.tls_ca):
        if file is not None and not file.is_file():
            raise CliError(f"{file}: no such file")
    try:
        context = pki.server_context_from_files(config.tls_cert, config.tls_key)
        return context, config.tls_ca.read_bytes() if config.tls_ca else b""
    except (OSError, ValueError) as error:
        raise CliError(
            f"cannot serve with {config.tls_cert} and {config.tls_key}: {error}",
            "both must be PEM and belong together",
        ) from error


async def _serve(config: Config, directory: DataDirectory, tracer_provider: TracerProvider | None) -> None:
    import asyncio

    from clusterling.cli.following import following
    from clusterling.storage.store import StorageError, is_shared
    from clusterling.tenancy.authentication.tokens import new_token
    from clusterling.tenancy.authorization import ADMIN

    stop = asyncio.Event()
    on_signals(stop.set)
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    sys.setswitchinterval(HANDOVER_S)
    packs = chosen_packs(config.packs)
    from clusterling.server import ApiServer
    from clusterling.services.workers.pool import WorkerLimits

    try:
        async with _opened(config, directory) as store:
            directory.write_format()
            shared = is_shared(store)
            context, ca_pem = await _tls(config, directory, store)
            token = config.admin_token or directory.admin_token() or new_token()
            server = ApiServer(
                store,
                packs=packs,
                admin_tokens={token: ADMIN},
                external_url=_external_url(config),
                ca_pem=ca_pem,
                default_cluster=config.default_cluster,
                metrics=config.metrics,
                metrics_token=config.metrics_token,
                default_quota=_default_quota(config.default_quota),
                limits=_limits(config.limits),
                workers=WorkerLimits(processes=config.workers),
                trusted_proxies=_trusted(config.trusted_proxies),
                proxy_protocol=config.proxy_protocol,
                tracer_provider=tracer_provider,
            )
            async with server.running():
                if shared and not config.admin_token:
                    # One that was given is every replica's already, and ends when it is given no more.
                    await server.keep_token(token)
                made = asyncio.Event()
                server.app.health.add("clusters", partial(_clusters_check, made))
                url = await _listen(server, config, context)
                followed = _followed(server, config, context)
                await _settle(server, config)
                for files in followed:
                    await files.look()
                made.set()
                directory.write_admin_kubeconfig(_admin_kubeconfig(server.url, token, ca_pem))
                gc.freeze()
                emit(f"clusterling ready: {url} data={directory.path}\n")
                async with following(followed):
                    await _until(stop, server)
                say("stopping")
                if server.failed is None:
                    await server.drain(*config.leave_s(shared=shared))
    except StorageError as error:
        raise CliError(str(error)) from error
    except ExceptionGroup as error:
        raise CliError(
            f"the server failed: {_leaf(error)!r}", "see its log; --log-level debug says more"
        ) from error


def _opened(config: Config, directory: DataDirectory) -> AbstractAsyncContextManager[Store]:
    if not config.store:
        from clusterling.storage import sqlite

        return sqlite.open(directory.database)
    from clusterling.storage.opening import open_store

    try:
        directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(
            f"{directory.path} cannot be made: {error.strerror}", "name another with --data-dir"
        ) from error
    return open_store(config.store, password=config.store_password)


def _leaf(error: BaseException) -> BaseException:
    """The first of the errors that a group of tasks ended with."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _external_url(config: Config) -> str:
    """What clients are told; "" where that is the address of the listener, which may have yet to take a port."""
    if config.external_url or config.host == config.reachable_host:
        return config.external_url
    scheme = "http" if config.insecure_http else "https"
    return f"{scheme}://{config.reachable_host}:{config.port}"


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


async def _listen(server: ApiServer, config: Config, context: ssl.SSLContext | None) -> str:
    try:
        return await server.listen(config.host, config.port, context)
    except OSError as error:
        raise CliError(
            f"cannot listen on {config.host}:{config.port}: {os.strerror(error.errno) if error.errno else error}",
            "name another address with --listen",
        ) from error


async def _clusters_check(made: asyncio.Event) -> str | None:
    """Who is sent here must not be told that there is no such cluster."""
    return None if made.is_set() else "the clusters that are to be there from the start are not all made"


async def _settle(server: ApiServer, config: Config) -> None:
    """Makes the cluster that is also served at `/`, at the first start."""
    from clusterling.machinery.errors import ApiError

    if config.default_cluster:
        try:
            await server.clusters.create(config.default_cluster)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise CliError(
                    f"cannot make the cluster {config.default_cluster}: {error.message}"
                ) from error


def _followed(server: ApiServer, config: Config, context: ssl.SSLContext | None) -> list[Followed]:
    """What is to be taken over when it changes. Raises CliError where the file of clusters holds anything else."""
    from clusterling.cli import following

    found = []
    if context is not None and config.tls_cert is not None and config.tls_key is not None:
        found.append(following.certificate(context, config.tls_cert, config.tls_key))
    if config.clusters is not None:
        following.read_clusters(config.clusters)
        found.append(following.clusters(server, config.clusters))
    return found


def _admin_kubeconfig(url: str, token: str, ca_pem: bytes) -> dict[str, Any]:
    from clusterling.tenancy.kubeconfig import kubeconfig
    from clusterling.tenancy.names import ROOT

    return kubeconfig(url, ROOT, token, ca_pem)


def on_signals(act: Callable[[], None]) -> None:
    """Calls `act` on the first SIGTERM or SIGINT; the second ends the process as if nobody handled it."""
    import asyncio

    loop = asyncio.get_running_loop()

    def first() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        act()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first)


async def _until(stop: Any, server: ApiServer) -> None:
    """Waits for the signal, or for a server that has failed (leaving its context raises why)."""
    import asyncio

    while not stop.is_set() and server.failed is None:
        try:
            await asyncio.wait_for(stop.wait(), _CHECK_S)
        except TimeoutError:
            continue
