"""Connections to one PostgreSQL: made anew when they break, and refused at once while the server stays away.

A `Link` is a place for one connection, used by one caller at a time. Whatever leaves it in doubt whether the server did
what it was asked (a cut, a time-out, a server that shuts down) is `Lost`; the connection is thrown away with it. An
answer that says no is a StorageError.

Rules of this file: asyncpg's errors leave it only as Lost, StorageErrors or, while opening, StoreOpenErrors; every
wait has an end.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from clusterling.storage.store import StorageError, StoreOpenError, Unavailable

if TYPE_CHECKING:
    from asyncpg import Connection, Record

CONNECT_S: Final = 3.0
QUERY_S: Final = 5.0  # For what is quick; lists have longer.
READ_S: Final = 60.0
PATIENCE_S: Final = 5.0  # So long is an absent server waited for; then answers are refused until it is back.
BACKOFF_FIRST_S: Final = 0.02
BACKOFF_MAX_S: Final = 1.0
READERS: Final = 4
SCHEMA_DEFAULT: Final = "clusterling"
IDENTIFIER_BYTES_MAX: Final = 63

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Lost(Exception):
    """The connection is gone, and with it the reply."""


class NotConnected(Lost):
    """There is no connection, so nothing was asked."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is and how to get in. `shown` has no password."""

    dsn: str
    schema: str
    shown: str
    password: str | None = field(default=None, repr=False)


def parse(url: str, password: str | None = None) -> Address:
    """`postgres://user@host:port/database?schema=…&sslmode=…`; a password given apart goes before the URL's.

    What else is in the query goes to the driver (https://magicstack.github.io/asyncpg/current/api/). Raises
    StoreOpenError.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        _ = parts.port
    except ValueError as error:
        raise StoreOpenError(
            f"the store's URL cannot be read ({error}): write postgres://USER@HOST/DATABASE"
        ) from error
    if not parts.path.strip("/"):
        raise StoreOpenError("the store's URL names no database: write postgres://USER@HOST/DATABASE")
    schema = SCHEMA_DEFAULT
    kept = []
    for name, value in query:
        if name == "schema":
            schema = value
        else:
            kept.append((name, value))
    if (
        not schema.isidentifier()
        or not schema.isascii()
        or len(schema) > IDENTIFIER_BYTES_MAX - 16
        or schema != schema.lower()
    ):
        raise StoreOpenError(
            f"schema={schema} in the store's URL: use up to 47 lower case letters, digits and _"
        )
    user = f"{unquote(parts.username)}@" if parts.username else ""
    hosts = parts.netloc.rpartition("@")[2]
    shown = f"postgres://{user}{hosts}{parts.path}"
    if not any(name == "target_session_attrs" for name, _ in kept):
        kept.append(("target_session_attrs", "primary"))  # A standby may not have what was acknowledged.
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(kept), ""))
    return Address(dsn, schema, shown, password)


async def connect(address: Address, *, seconds: float = CONNECT_S) -> Connection[Record]:
    """A connection to the primary. Raises what asyncpg raises, OSError and TimeoutError."""
    import asyncpg

    async with asyncio.timeout(seconds):  # asyncpg's own is for each host it tries.
        return await asyncpg.connect(
            address.dsn,
            password=address.password,
            timeout=seconds,
            statement_cache_size=64,
            server_settings={
                "application_name": "clusterling",
                "search_path": address.schema,
                # Every statement here is by index; a planner that has not seen the tables grow yet must not scan them.
                "enable_seqscan": "off",
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
                "jit": "off",
                "plan_cache_mode": "force_generic_plan",
                "statement_timeout": str(round(READ_S * 1000)),
                "idle_in_transaction_session_timeout": str(round(READ_S * 1000)),
                # A replica that stands still must not hold what it has locked.
                "tcp_keepalives_idle": "5",
                "tcp_keepalives_interval": "2",
                "tcp_keepalives_count": "3",
                "tcp_user_timeout": "10000",
            },
        )


def translated(error: Exception) -> StorageError | None:
    """What an error of the driver says, None where it says only that there is no answer."""
    import asyncpg

    if not isinstance(error, asyncpg.PostgresError):
        return None
    state = error.sqlstate or ""
    # Connection, operator's intervention, not (or no longer) the primary; our own: the store was put back.
    if state.startswith(("08", "57", "25", "CL002")):
        return None
    if state == "53100":
        return Unavailable("the database's disk is full")
    if state in ("40001", "40P01"):
        return Unavailable("the database was too busy with others: try again")
    _log.error("postgres-refused sqlstate=%s error=%s", state, error)
    return Unavailable(f"postgres: {error}")


def unopenable(address: Address, error: Exception) -> StoreOpenError:
    """Why the store cannot be opened, in a line."""
    import asyncpg

    where = address.shown
    reason = " ".join(str(error).split()) or type(error).__name__
    match error:
        case StoreOpenError():
            return error
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            return StoreOpenError(
                f"{where} lets nobody in with that user and password: check --store-password-file"
            )
        case asyncpg.InvalidCatalogNameError():
            return StoreOpenError(f"{where} does not exist: create the database first")
        case asyncpg.InsufficientPrivilegeError():
            return StoreOpenError(
                f"{where} refuses ({reason}): let the user create its schema, or make one that is the user's own"
            )
        case TimeoutError():
            return StoreOpenError(f"{where} does not answer: check the address, and that the server runs")
        case OSError():
            return StoreOpenError(
                f"{where} cannot be reached ({reason}): check the address, and that the server runs"
            )
        case _:
            return StoreOpenError(f"{where} cannot be opened: {reason}")


class Outage:
    """Since when the server is away, for all links together."""

    def __init__(self) -> None:
        self._since: float | None = None

    def note_failure(self) -> None:
        if self._since is None:
            self._since = asyncio.get_running_loop().time()
            _log.warning("postgres-away")

    def note_success(self) -> None:
        if self._since is not None:
            away = asyncio.get_running_loop().time() - self._since
            _log.warning("postgres-back after_s=%.1f", away)
            self._since = None

    @property
    def long(self) -> bool:
        """It has been away for so long that nobody should wait for it."""
        return self._since is not None and asyncio.get_running_loop().time() - self._since > PATIENCE_S


class Link:
    """A place for one connection. `greet` looks at each new one before it is used."""

    def __init__(
        self, address: Address, outage: Outage, greet: Callable[[Connection[Record]], Awaitable[None]]
    ) -> None:
        self._address = address
        self._outage = outage
        self._greet = greet
        self._connection: Connection[Record] | None = None

    async def connection(self) -> Connection[Record]:
        """The connection, made in one attempt where there is none. Raises NotConnected, and StorageErrors of `greet`."""
        if self._connection is not None:
            if not self._connection.is_closed():
                return self._connection
            self._connection = None
        made: Connection[Record] | None = None
        try:
            made = await connect(self._address)
            await self._greet(made)
        except BaseException as error:
            if made is not None:
                made.terminate()
            if isinstance(error, Exception) and not isinstance(error, StorageError):
                self._outage.note_failure()
                raise NotConnected(str(error) or type(error).__name__) from error
            raise
        self._outage.note_success()
        self._connection = made
        return made

    async def call(self, work: Callable[[Connection[Record]], Awaitable[T]]) -> T:
        """One attempt of `work`. Raises Lost or a StorageError."""
        connection = await self.connection()
        try:
            return await work(connection)
        except StorageError:
            raise
        except Exception as error:
            refused = translated(error)
            if refused is not None:
                raise refused from error
            if not _is_of_connection(error):
                self.drop()
                raise
            self.drop()
            raise Lost(str(error) or type(error).__name__) from error
        except BaseException:
            # Cancelled in the middle of a question: whoever comes next must not get its answer.
            self.drop()
            raise

    def drop(self) -> None:
        """Throws the connection away, without a word to the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1.0)
        except Exception as error:  # noqa: BLE001 - it is gone, one way or the other
            _log.debug("postgres-close error=%r", error)
            connection.terminate()


def _is_of_connection(error: Exception) -> bool:
    import asyncpg

    return isinstance(
        error,
        OSError
        | TimeoutError
        | EOFError
        | asyncpg.PostgresError
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError,
    )


class Patience:
    """Attempts at something, with growing pauses, until it has taken too long or the server is known to be away."""

    def __init__(self, outage: Outage, seconds: float = PATIENCE_S) -> None:
        self._outage = outage
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._pause = 0.0

    async def after(self, error: Exception) -> None:
        """Waits for the time of the next attempt. Raises Unavailable where there is none."""
        if self._outage.long or asyncio.get_running_loop().time() + self._pause > self._deadline:
            raise Unavailable(f"the database does not answer: {error}") from error
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(max(self._pause * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)


class Readers:
    """A few links for whoever reads; the one used last goes first, so that as few as needed are open."""

    def __init__(self, make: Callable[[], Link], outage: Outage) -> None:
        self._make = make
        self._outage = outage
        self._idle: list[Link] = []
        self._free = asyncio.Semaphore(READERS)
        self._links: set[Link] = set()

    async def call(self, work: Callable[[Connection[Record]], Awaitable[T]]) -> T:
        """Does `work`, which only reads and may so be done again. Raises Unavailable and what work raises."""
        patience: Patience | None = None
        while True:
            if self._outage.long:
                raise Unavailable("the database does not answer")
            try:
                async with self._free:
                    link = self._idle.pop() if self._idle else self._new()
                    try:
                        return await link.call(work)
                    finally:
                        self._idle.append(link)
            except Lost as error:
                patience = patience or Patience(self._outage)
                await patience.after(error)

    def drop(self) -> None:
        for link in self._links:
            link.drop()

    async def close(self) -> None:
        for link in self._links:
            await link.close()

    def _new(self) -> Link:
        link = self._make()
        self._links.add(link)
        return link
