"""Files that a running server goes by: its certificate, and the logical clusters that are to be there.

Whoever mounts them (a Secret that cert-manager renews, a ConfigMap) changes them in place, and a restart would cut every
watch. So they are looked at every second, and a change is taken over; one that cannot be is logged, and what was stays.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusterling.cli.errors import CliError
from clusterling.machinery.meta import Object
from clusterling.tenancy.cluster import GROUP, KIND, VERSION

if TYPE_CHECKING:
    from clusterling.server import ApiServer

_log = logging.getLogger(__name__)

API_VERSION: Final = f"{GROUP}/{VERSION}"

# Who owns the fields that the file gives; what others have set beside them stays.
FIELD_MANAGER: Final = "clusterling-serve"
APPLY: Final = "application/apply-patch+yaml"

LOOK_S: Final = 1.0

# Of each file: when it was changed, its size, and which one it is (mounted volumes swap it for another).
_Stamp = tuple[tuple[int, int, int] | None, ...]


class Followed:
    """Some files, and what to do when they change."""

    def __init__(
        self, files: Sequence[Path], act: Callable[[], Awaitable[None]], *, taken: bool = False
    ) -> None:
        """`act` may raise CliError, OSError or ValueError: it is then tried again at each look.

        `taken`: whether the files as they are now have been acted on.
        """
        self._files = tuple(files)
        self._act = act
        self._taken = self._stamp() if taken else None
        self._problem = ""

    async def look(self) -> None:
        """Acts if the files are not those that were last taken over. A problem is logged when it is a new one."""
        stamp = self._stamp()
        if stamp == self._taken:
            return
        names = ",".join(map(str, self._files))
        try:
            await self._act()
        except (CliError, OSError, ValueError) as error:
            if str(error) != self._problem:
                _log.error("change-not-taken-over files=%s error=%r", names, str(error))
            self._problem = str(error)
        else:
            self._taken, self._problem = stamp, ""
            _log.info("change-taken-over files=%s", names)

    def _stamp(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))


@asynccontextmanager
async def following(followed: Sequence[Followed]) -> AsyncIterator[None]:
    """Looks at the files while the context lasts."""

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for files in followed:
                await files.look()

    task = asyncio.get_running_loop().create_task(look(), name="following") if followed else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _stamp_of(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def certificate(context: ssl.SSLContext, certificate: Path, key: Path) -> Followed:
    """Has a listener's context show the files' newest certificate to whoever connects next."""

    async def renew() -> None:
        from clusterling.tenancy import pki

        # Files that do not fit would leave the listener's own context with halves of two pairs.
        pki.server_context_from_files(certificate, key)
        context.load_cert_chain(certificate, key)

    return Followed((certificate, key), renew, taken=True)


def clusters(server: ApiServer, file: Path) -> Followed:
    """Has the clusters of the file be there and as it says."""

    async def apply() -> None:
        await apply_clusters(server, file)

    return Followed((file,), apply)


async def apply_clusters(server: ApiServer, file: Path) -> None:
    """Makes the file's clusters, or changes what it says of them. Others, and their other fields, are left alone.

    Raises CliError that says which could not be; the rest is applied: one tenant's mistake is not another's.
    """
    from clusterling.machinery.errors import ApiError
    from clusterling.server import LOGICAL_CLUSTERS
    from clusterling.tenancy.names import ROOT

    root = server.client(str(ROOT))
    problems = []
    for cluster in read_clusters(file):
        name = cluster["metadata"]["name"]
        try:
            await root.patch(
                f"{LOGICAL_CLUSTERS}/{name}",
                cluster,
                content_type=APPLY,
                fieldManager=FIELD_MANAGER,
                force=True,
                fieldValidation="Strict",
            )
        except ApiError as error:
            problems.append(f"{name}: {error.message}")
    if problems:
        raise CliError(f"{file}: not applied: {'; '.join(problems)}")


def read_clusters(file: Path) -> list[Object]:
    """The LogicalClusters in a file of YAML documents. Raises CliError where there is anything else."""
    import yaml

    try:
        # The loader's own classes: `safe_load_all` is Python throughout.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        documents = [one for one in yaml.load_all(file.read_text(), Loader=loader) if one is not None]
    except OSError as error:
        raise CliError(f"{file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    for number, document in enumerate(documents, 1):
        if not _is_cluster(document):
            raise CliError(f"{file}: document {number} is no {KIND} of {API_VERSION} with a name")
    return documents


def _is_cluster(document: Any) -> bool:
    from clusterling.machinery.names import is_dns1123_label

    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        return False
    name = document["metadata"].get("name")
    kind = (document.get("apiVersion"), document.get("kind"))
    return kind == (API_VERSION, KIND) and isinstance(name, str) and not is_dns1123_label(name)
