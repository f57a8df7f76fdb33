"""ApiServer: the composition root, and the library. Everything below is built here by plain constructor calls.

    async with memory.open() as store, ApiServer(store).running() as server:
        team = await server.clusters.create("team-a")
        await server.client("team-a").get("/api/v1/namespaces")

The server owns no global state: two of them in one process share nothing. It opens no socket by itself; `listen` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from clusterling.controllers import expiry, history
from clusterling.controllers.apiservices import ApiServiceController
from clusterling.controllers.clusters import ClusterController
from clusterling.controllers.crds import CrdController
from clusterling.controllers.disruption import DisruptionController
from clusterling.controllers.garbage import GarbageCollector
from clusterling.controllers.lifetimes import Lifetimes
from clusterling.controllers.namespaces import NamespaceController
from clusterling.controllers.provisions import ProvisionController
from clusterling.controllers.quota import QuotaController
from clusterling.controllers.reporting import Reporting
from clusterling.controllers.roles import RoleController
from clusterling.controllers.runtime import Runtime
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission, AdmissionChain, CatalogAdmission
from clusterling.registry.choice import Choice, Choices, Offer
from clusterling.registry.pack import Pack
from clusterling.registry.ports import Attributes, Clock, Ports
from clusterling.registry.strategy import User
from clusterling.services import documents, requestinfo
from clusterling.services.addresses import Addresses, Network
from clusterling.services.app import App, Authenticator, Authorizer, Decision
from clusterling.services.app import Cluster as ServedCluster
from clusterling.services.barrier import Barrier
from clusterling.services.client import Client
from clusterling.services.health import Health
from clusterling.services.metrics import families, sources
from clusterling.services.metrics.scraping import Parts
from clusterling.services.metrics.sources import Sampled
from clusterling.services.request import Request, Stream
from clusterling.services.requestinfo import RequestInfo
from clusterling.services.workers.pool import WorkerLimits, Workers
from clusterling.storage.backed import BackedStore
from clusterling.storage.backoff import Backoff
from clusterling.storage.cache import CacheBudget
from clusterling.storage.election import Election, Led, lead
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import RevisionConflict, Store, Unavailable, UnknownOutcome, is_shared
from clusterling.tenancy.authentication.authenticator import Tokens, bearer_token
from clusterling.tenancy.authentication.tokens import (
    TOKEN_CHARACTERS_MAX,
    IssuedTokens,
    StaticTokens,
    token_hash,
)
from clusterling.tenancy.authorization import ADMIN, allows
from clusterling.tenancy.cluster import GROUP, KIND, PLURAL, VERSION, ensure_root, refresh_urls, root_pack
from clusterling.tenancy.clustertokens import tokens_part
from clusterling.tenancy.directory import Directory, Record
from clusterling.tenancy.kubeconfig import Endpoint
from clusterling.tenancy.limits import Limits
from clusterling.tenancy.names import ROOT, ROOT_ID
from clusterling.tenancy.pool import ClusterPool
from clusterling.tenancy.quota import NO_QUOTA, WATCHES, Quota, Quotas
from clusterling.tenancy.rates import Rates
from clusterling.tenancy.totals import Totals
from clusterling.tenancy.underlay import UNDERLAY_ID, Underlay
from clusterling.tenancy.usage import SoftQuota, usage_part

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from clusterling.services.http import Listener
    from clusterling.services.tracing import Tracing

logger = logging.getLogger(__name__)

LOGICAL_CLUSTERS: Final = f"/apis/{GROUP}/{VERSION}/{PLURAL}"


STORE_CHECK_S: Final = 2.0  # Within which a replica that has lost its store says that it is not ready.


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class BearerTokens:
    """Authenticates requests by their bearer token, in the realm of the cluster they name, then in root's."""

    def __init__(self, tokens: Tokens, issued: IssuedTokens, directory: Directory) -> None:
        """`issued`: those of the tokens that can end."""
        self._tokens = tokens
        self._issued = issued
        self._directory = directory

    async def authenticate(self, request: Request) -> User | None:
        token, digest = _login(request)
        if token is None:
            return None
        # Only looked up: nothing of a cluster is built for who has not shown a credential yet.
        record = await self._directory.named(request.info.cluster)
        user = await self._tokens.authenticate_token(
            token, None if record is None else record.id, digest=digest
        )
        if user is None and record is not None:
            # A no takes as long for a name that is known as for one that had to be looked for (decision 22).
            await self._directory.ask(record.name)
        return user

    async def hold(self, request: Request, stream: Stream) -> Callable[[], None]:
        """Stops the stream when its request's token ends. Implements `services.app.Credentials`."""
        token = bearer_token(request.headers.get("Authorization"))
        assert token is not None, "there is no other credential"
        release = self._issued.hold(request.user.realm, token_hash(token), stream.stop)
        try:
            still = await self.authenticate(request)
        except BaseException:
            release()
            raise
        if still is None:
            # It ended while the stream was being opened.
            stream.stop()
        return release


def _login(request: Request) -> tuple[str | None, str]:
    """The bearer token of a request, and its hash. Of header fields that a connection has kept, it was read before."""
    given, peer = request.headers.get("Authorization"), request.peer
    known = peer.login
    # Whether it is the same text is not looked at: that would take the longer the more of it is guessed.
    if known is not None and known[0] is given:
        return known[1:]
    token = bearer_token(given)
    if given is None or token is None or len(token) > TOKEN_CHARACTERS_MAX or not peer.address:
        return token, ""
    digest = token_hash(token)
    peer.login = given, token, digest
    return token, digest


class MastersOnly:
    """Until RBAC is served: a cluster's own masters and root's may do everything there, others nothing."""

    async def authorize(self, user: User, cluster: ServedCluster | None, info: RequestInfo) -> Decision:
        return Decision(allows(user, None if cluster is None else cluster.id))


class AllowAll:
    """Everybody may do everything: for embedders who ask elsewhere."""

    async def authorize(self, user: User, cluster: ServedCluster | None, info: RequestInfo) -> Decision:
        return Decision(cluster is not None)


class RequestsAccess:
    """Answers access reviews by asking who authorizes requests about the request that it would be.

    Implements `registry.ports.Access`.
    """

    def __init__(
        self, authorizer: Authorizer, find: Callable[[str], Awaitable[ServedCluster | None]]
    ) -> None:
        self._authorizer = authorizer
        self._find = find

    async def allows(self, user: User, cluster: str, asked: Attributes) -> tuple[bool, str]:
        info = RequestInfo(cluster, asked.path, {}, asked.verb)
        info.is_resource = not asked.path
        for field in ("group", "version", "resource", "subresource", "namespace", "name"):
            setattr(info, field, getattr(asked, field))
        decision = await self._authorizer.authorize(user, await self._find(cluster), info)
        return decision.allowed, decision.reason


@dataclass(frozen=True, slots=True)
class LogicalCluster:
    """A logical cluster as its creator sees it."""

    name: str
    id: str
    uid: str
    url: str


class Clusters:
    """Logical clusters from Python: the same objects in `root`, through the same verbs, as kubectl's."""

    def __init__(self, root: Client) -> None:
        self._root = root

    async def create(self, name: str, spec: Object | None = None, *, packs: str = "") -> LogicalCluster:
        """A new cluster, ready when this returns. `packs` as `--packs` has it: `core,-secrets`; "" the server's.

        Raises ApiError (409 AlreadyExists, 422 Invalid).
        """
        if packs:
            spec = {**(spec or {}), "packs": [item.strip() for item in packs.split(",")]}
        body: Object = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}}
        if spec is not None:
            body["spec"] = spec
        return _logical_cluster(await self._root.post(LOGICAL_CLUSTERS, body))

    async def get(self, name: str) -> LogicalCluster:
        """Raises ApiError 404."""
        return _logical_cluster(await self._root.get(f"{LOGICAL_CLUSTERS}/{name}"))

    async def list(self) -> Sequence[LogicalCluster]:
        """All clusters, `root` included, by name."""
        return [_logical_cluster(item) for item in (await self._root.get(LOGICAL_CLUSTERS))["items"]]

    async def delete(self, name: str) -> None:
        """The cluster answers no more when this returns; its data go in the background. Raises ApiError 404."""
        await self._root.delete(f"{LOGICAL_CLUSTERS}/{name}")

    async def kubeconfig(self, name: str) -> Object:
        """A kubeconfig with a fresh credential. Raises ApiError 503 where no socket is served."""
        return await self._root.post(f"{LOGICAL_CLUSTERS}/{name}/kubeconfig", {})


async def _patiently(work: Callable[[], Awaitable[None]]) -> None:
    """Does what is safe to repeat, however long the store is away and other replicas are at the same."""
    backoff = Backoff()
    while True:
        try:
            return await work()
        except (Unavailable, UnknownOutcome, RevisionConflict) as error:
            logger.warning("put-off error=%r", error)
        await backoff.wait()


def _tracing(provider: TracerProvider) -> Tracing:
    """Raises ImportError without `opentelemetry-api`, which whoever has a provider has."""
    from clusterling.services.tracing import Tracing

    return Tracing(provider)


def _logical_cluster(obj: Object) -> LogicalCluster:
    status = obj.get("status", {})
    return LogicalCluster(
        obj["metadata"]["name"], status.get("id", ""), obj["metadata"]["uid"], status.get("url", "")
    )


class ApiServer:
    """Serves logical clusters over any Store. Every part can be replaced by an argument.

    `packs`: what a cluster serves that does not choose; None: what one without nodes needs. `offer`: what clusters
    may choose from by `spec.packs`; None: `packs`, and everything that comes with this library. `admin_tokens`: bearer tokens of root's realm.
    `external_url`: what kubeconfigs and statuses say, where it is not the first listener's address.
    `default_cluster` is also served at `/`. `run_controllers` False: another replica does what they do.
    `default_quota`: for clusters that do not say otherwise.
    `limits`: over those of `tenancy.limits.DEFAULTS`, by their names. `trusted_proxies`: networks whose X-Forwarded-For is believed, or
    with `proxy_protocol` what their connections begin with.
    `workers`: how many processes there may be for writes that would hold the event loop for long, and what they may take; None: none, for
    tenants who would not mind. They are started when there are such writes. There are none where `admission` has a say, or for clusters
    whose kinds do not come with this library.
    `metrics` False: nothing is counted. `metrics_token`: lets scrapers have /metrics, and nothing else.
    `tracer_provider`: OpenTelemetry's, for spans of requests and controllers; None: nothing is traced, nor paid for that.
    """

    def __init__(
        self,
        store: Store,
        *,
        packs: Iterable[Pack] | None = None,
        offer: Offer | None = None,
        authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
        admission: Sequence[Admission] = (),
        clock: Clock | None = None,
        admin_tokens: Mapping[str, User] | None = None,
        external_url: str = "",
        ca_pem: bytes = b"",
        default_cluster: str = "",
        cache_bytes_max: int = 512 << 20,
        run_controllers: bool = True,
        metrics: bool = True,
        metrics_token: str = "",
        default_quota: Quota = NO_QUOTA,
        limits: Mapping[str, int] | None = None,
        trusted_proxies: Sequence[Network] = (),
        proxy_protocol: bool = False,
        workers: WorkerLimits | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        if offer is None:
            from clusterling.packs import OFFER

            offer = OFFER
        self._offer = offer if packs is None else offer.with_default(tuple(packs))
        # What this replica writes while it leads, and may have lost the lead, is refused where others write as well.
        self._replicated = store if is_shared(store) else None
        self._backed = store if isinstance(store, BackedStore) else None
        tracing = None if tracer_provider is None else _tracing(tracer_provider)
        store = store if self._replicated is None else Led(store)
        self._store = store
        self._clock = clock or SystemClock()
        self._run_controllers = run_controllers
        self._endpoint = Endpoint(external_url, ca_pem)
        self._root_ca = ca_pem.decode(errors="replace")
        self._has_external_url = bool(external_url)
        self._tokens = IssuedTokens(store, self._clock)
        known_tokens = Tokens((StaticTokens(admin_tokens or {}), self._tokens))
        authorizer = authorizer or MastersOnly()
        choices = self._choices = Choices(self._offer)
        # Whatever else is on offer is loaded when a cluster that chose it is first asked for something.
        choices.default.load()
        self._root_keys = Keyspace(store, ROOT_ID)
        self._directory = Directory(self._root_keys)
        self._budget = CacheBudget(cache_bytes_max)
        quotas = Quotas(self._quota_of, default_quota)
        rates = self._rates = Rates(quotas, self._clock.monotonic)
        self._limits = Limits(limits)
        self._addresses = Addresses(limits, trusted_proxies, proxy_protocol=proxy_protocol)

        def online(cluster_id: str) -> Mapping[str, int]:
            return {WATCHES: rates.watches(cluster_id)}

        self._underlay = Underlay(Keyspace(store, UNDERLAY_ID), self._root_ca)
        soft_quota = SoftQuota(store, quotas, self._clock.monotonic)
        self.workers = Workers(
            kinds_of=self._shareable,
            soft=soft_quota,
            asks_soft=lambda of: bool(quotas.of(of).soft),
            clock=self._clock,
            root_ca=self._root_ca,
            limits=WorkerLimits(processes=0) if admission or workers is None else workers,
        )
        self.pool = ClusterPool(
            store,
            self._directory,
            choices=choices,
            root=Choice(
                (
                    *self._offer.default,
                    root_pack(
                        self._offer,
                        [
                            tokens_part(self._tokens),
                            usage_part(store, quotas, online),
                        ],
                    ),
                )
            ),
            below=self._underlay,
            ports=Ports(
                self._clock,
                self._tokens,
                self._endpoint,
                reader=known_tokens,
                # The pool that is being made here.
                access=RequestsAccess(authorizer, lambda name: self.pool.find(name)),  # noqa: PLW0108
                root_ca=self._root_ca,
                turns=lambda cluster_id: lambda: self.app.turnstile.turn(cluster_id),
            ),
            admission=AdmissionChain((CatalogAdmission(), soft_quota, *admission)),
            budget=self._budget,
            quotas=quotas,
            forget=self._forget,
            clearing=self._is_clearing,
        )
        bearers = BearerTokens(known_tokens, self._tokens, self._directory)
        self.app = App(
            clusters=self.pool,
            authenticator=authenticator or bearers,
            credentials=bearers if authenticator is None else None,
            authorizer=authorizer,
            documents=documents.respond,
            limits=self._limits,
            addresses=self._addresses,
            rates=rates,
            health=Health(
                ready={
                    "store": self._store_check,
                    "informer-sync": self._clusters_check,
                    "shutdown": self._shutdown_check,
                }
            ),
            barrier=None
            if self._replicated is None
            else Barrier(store.fresh, self._clock.monotonic, getattr(self._replicated, "others", None)),
            default_cluster=default_cluster,
            workers=self.workers,
            metrics=Parts(self._samples, Totals(store, quotas, online)) if metrics else None,
            metrics_token=metrics_token,
            tracing=tracing,
        )
        self._directory.listen(self._heard_of)
        self.clusters = Clusters(self.client(str(ROOT)))
        self.failed: BaseException | None = None
        self._runtime = Runtime(
            store,
            (
                NamespaceController(self.pool),
                CrdController(self.pool),
                ApiServiceController(self.pool),
                GarbageCollector(self.pool),
                QuotaController(self.pool),
                ProvisionController(store, self.pool),
                RoleController(self.pool),
                DisruptionController(self.pool),
                ClusterController(store, self.pool, self._tokens),
            ),
            self._clock,
            traced=None if tracing is None else tracing.work,
        )
        self._lifetimes = Lifetimes(self._directory, self.pool, self._clock)
        self._reporting = Reporting(store, self._directory, self.pool, quotas, rates.take_asked, self._clock)
        self._election: Election | None = None
        self.app.controllers = self._controllers
        self._listeners: list[Listener] = []
        self._ready = asyncio.Event()
        self._leaving = False

    def _quota_of(self, cluster_id: str) -> Quota | None:
        record = self._directory.by_id(cluster_id)
        return None if record is None else record.quota

    @property
    def url(self) -> str:
        """The address that clients are told, "" while nothing listens."""
        return self._endpoint.base_url

    def client(self, cluster: str, user: User = ADMIN) -> Client:
        """A client in this process, without a socket: the same filters, handlers and answers."""
        return Client(self.app, cluster, user)

    async def run(self) -> None:
        """Serves until cancelled: to be awaited in the embedder's own TaskGroup. Raises what made it fail."""
        try:
            await _patiently(self._prepare)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._directory.run(), name="directory")
                group.create_task(self._tokens.run(), name="tokens")
                group.create_task(self.pool.run(), name="pool")
                await self._directory.ready()
                if self._run_controllers:
                    self._start_controllers(group)
                    group.create_task(self._reporting.run(), name="reporting")
                self._ready.set()
        finally:
            await self._stop()

    def _start_controllers(self, group: asyncio.TaskGroup) -> None:
        """At once where this process is alone with its store, else whenever it is elected among the replicas."""
        if self._replicated is None:
            group.create_task(self._control(), name="controllers")
            return
        holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(8)}"
        self._election = election = Election(self._replicated, self._clock, holder=holder)
        group.create_task(election.run(), name="election")
        group.create_task(lead(election, self._control), name="leader")

    def _samples(self) -> Iterator[Sampled]:
        """What there is to tell of the parts that requests do not pass."""
        yield Sampled(families.ERRORS, [((), self.app.errors)])
        yield Sampled(families.CLUSTERS, [((), len(self._directory))])
        yield Sampled(families.SERVED, [((), len(self.pool))])
        yield Sampled(families.CONNECTIONS, [((), sum(one.connections for one in self._listeners))])
        yield Sampled(families.ACCEPTED, [((), sum(one.accepted for one in self._listeners))])
        yield Sampled(families.ESTABLISHED, [((), sum(one.established for one in self._listeners))])
        crowded = 0 if self._backed is None else self._backed.batcher.crowded
        full = {"store": crowded, "workers": self.workers.refused}
        yield from sources.limits(self._limits, self._rates, full)
        doors = [one.door for one in self._listeners if one.door is not None]
        yield from sources.addresses(self._addresses, doors)
        yield from sources.workers(self.workers)
        yield from sources.cache(self._budget)
        if self._backed is not None:
            yield from sources.store(self._backed)
        yield from sources.queues(self._runtime.queues(), leads=self._leads)

    @property
    def _leads(self) -> bool:
        """This replica is the one whose controllers are at work."""
        if self._election is None:
            return self._replicated is None and self._run_controllers
        return self._election.term is not None

    def _heard_of(self, old: Record | None, new: Record | None) -> None:
        """A cluster that is gone has no metrics."""
        if old is not None and new is None:
            self.app.recorder.tenants.forget(old.name)

    def _controllers(self) -> str:
        """Why what controllers finish may wait; "" where they are at work."""
        if not self._run_controllers and self._replicated is None:
            return "this server runs no controllers"
        if self._election is not None and not self._election.is_led:
            return "no replica leads the controllers now"
        return ""

    async def _control(self) -> None:
        """What one replica does for all, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._runtime.run(), name="controllers")
            group.create_task(expiry.run(self._store, self._clock), name="expiry")
            group.create_task(self._lifetimes.run(), name="lifetimes")
            group.create_task(self._reporting.follow(), name="reporting-follow")
            group.create_task(history.run(self._store, self._clock), name="history")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ApiServer]:
        """Serves while the context lasts. One task owns everything; what ends it early is raised at exit (`failed` until then)."""
        owner = asyncio.get_running_loop().create_task(self.run(), name="clusterling")
        owner.add_done_callback(self._note_failure)
        ready = asyncio.get_running_loop().create_task(self._ready.wait())
        try:
            await asyncio.wait({owner, ready}, return_when=asyncio.FIRST_COMPLETED)
            if owner.done():
                await owner
            yield self
        finally:
            ready.cancel()
            owner.cancel()
            try:
                await owner
            except asyncio.CancelledError:
                if self.failed is not None:
                    raise self.failed from None

    async def listen(
        self, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> str:
        """Opens a socket; returns its base URL, with the real port where `port` is 0. Raises OSError."""
        from clusterling.services.http import serve

        listener = await serve(self.app, host, port, ssl_context)
        self._listeners.append(listener)
        shown = f"[{host}]" if ":" in host else host
        url = f"{'https' if ssl_context else 'http'}://{shown}:{listener.port}"
        if not self._endpoint.base_url:
            self._endpoint.base_url = url
        # One replica's own address is not the service's: each would write its own over the others'.
        if self._has_external_url or self._replicated is None:
            await _patiently(lambda: refresh_urls(self._root_keys, self._endpoint.url))
        return url

    async def keep_token(self, token: str, user: User = ADMIN) -> None:
        """Makes a token good at every replica of this store, for good: only its hash is kept."""
        await _patiently(lambda: self._tokens.keep(token, user))

    async def stop_listening(self, spread_s: float = 1.0) -> None:
        """Takes no more connections; requests in flight end, watches close cleanly, one after the other over `spread_s`."""
        listeners, self._listeners = self._listeners, []
        async with asyncio.TaskGroup() as group:
            for listener in listeners:
                group.create_task(listener.close(spread_s=spread_s))

    async def drain(self, delay_s: float = 0.0, spread_s: float = 1.0) -> None:
        """Takes leave of clients in order: no request is cut off, no watch misses an event when it goes on elsewhere.

        Readiness goes at once, and for `delay_s` all is served on, so that whoever sends requests here learns of it;
        connections end behind their next answer. Then nothing more is accepted, and watches end over `spread_s`.
        """
        self._leaving = True
        for listener in self._listeners:
            listener.leave()
        await asyncio.sleep(delay_s)
        await self.stop_listening(spread_s)

    async def _prepare(self) -> None:
        """Brings the store to what this server needs of it. Safe to repeat, and by several replicas at once."""
        await self._underlay.install(self._offer.default)
        await ensure_root(self._root_keys, self._clock, self._endpoint.url(str(ROOT)))

    async def _stop(self) -> None:
        self._ready.clear()
        if self.app.metrics is not None:
            self.app.metrics.lag.stop()
        await self.stop_listening()
        await self.workers.aclose()
        await self.pool.aclose()

    def _note_failure(self, owner: asyncio.Task[None]) -> None:
        if not owner.cancelled() and owner.exception() is not None:
            self.failed = owner.exception()
            logger.error("server-failed error=%r", self.failed)

    async def _forget(self) -> None:
        """Lets go of what is remembered only to be quicker, where it is of clusters that are gone, most of it."""
        requestinfo.forget()
        if self._backed is not None:
            await self._backed.forget()

    def _is_clearing(self) -> bool:
        """This replica is removing data of clusters that were deleted."""
        queues = self._runtime.queues() if self._leads else ()
        return any(name == ClusterController.name and count for name, count, _ in queues)

    def _shareable(self, cluster_id: str) -> Sequence[tuple[str, str]] | None:
        """The built-in kinds of a cluster, where all of them come with this library, so that another process has them too."""
        from clusterling.packs import OFFER

        record = self._directory.by_id(cluster_id)
        if record is None or cluster_id == ROOT_ID:
            return None
        packs = self._choices.of(record.packs).packs
        if not all(pack.comes_from(OFFER.packs) for pack in packs):
            return None
        return [(kind.group, kind.plural) for pack in packs for kind in pack.kinds]

    async def _shutdown_check(self) -> str | None:
        return "process is shutting down" if self._leaving else None

    async def _clusters_check(self) -> str | None:
        if not self._ready.is_set():
            return "the server is starting, or has ended"
        return None if self._directory.is_current else "the logical clusters are not known now"

    async def _store_check(self) -> str | None:
        try:
            async with asyncio.timeout(STORE_CHECK_S):
                await self._store.fresh()
        except TimeoutError:
            return "the store does not answer"
        return None


__all__ = ["AllowAll", "ApiError", "ApiServer", "LogicalCluster"]
