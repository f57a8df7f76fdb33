"""The admin API from outside: logical clusters over HTTPS, with the credentials of a kubeconfig.

It is the Kubernetes API of `root`, nothing else; kubectl could do all of this. The stdlib's client is enough, and starts fast.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Final
from urllib.parse import quote, urlsplit

from typing_extensions import override

from clusterling.cli.errors import CliError, Exit
from clusterling.cli.target import Target
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label
from clusterling.version import __version__

COLLECTION: Final = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"
TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

_MERGE: Final = "application/merge-patch+json"

PAGE: Final = 500  # Clusters in one answer; kubectl asks for as many.

# An answer larger than this is not from this API.
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class Admin:
    """Logical clusters on one server. Every method raises CliError, with the exit code that suits."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._url = urlsplit(target.server)
        self._connection: http.client.HTTPConnection | None = None
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise CliError(f"{target.source} names no https server: {target.server!r}")

    def list(self) -> Object:
        return self._pages("items")

    def list_table(self) -> Object:
        return self._pages("rows", accept=TABLE)

    def _pages(self, part: str, accept: str = "application/json") -> Object:
        """All logical clusters, as they were together, in answers that a server makes in passing."""
        path = f"{COLLECTION}?limit={PAGE}"
        found = self._call("GET", path, accept=accept)
        more = found["metadata"].pop("continue", "")
        found["metadata"].pop("remainingItemCount", None)
        while more:
            page = self._call("GET", f"{path}&continue={quote(more, safe='')}", accept=accept)
            found[part] += page[part]
            more = page["metadata"].get("continue", "")
        return found

    def get(self, name: str) -> Object:
        return self._call("GET", _path(name), about=name)

    def get_table(self, name: str) -> Object:
        return self._call("GET", _path(name), accept=TABLE, about=name)

    def create(self, obj: Object) -> Object:
        return self._call("POST", COLLECTION, obj, about=obj["metadata"]["name"])

    def patch(
        self, name: str, spec: Object, *, uid: str = "", annotations: dict[str, str] | None = None
    ) -> Object:
        """Changes what of the spec is given; None takes a field away. `uid`: as for `delete`."""
        metadata: Object = {"uid": uid} if uid else {}
        if annotations:
            metadata["annotations"] = annotations
        body: Object = {"metadata": metadata, "spec": spec}
        return self._call("PATCH", _path(name), body, about=name)

    def delete(self, name: str, uid: str = "") -> Object:
        """`uid`: only the cluster with it, not a namesake made since."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        return self._call("DELETE", _path(name), options, about=name)

    def kubeconfig(self, name: str) -> Object:
        return self._call(
            "POST", f"{_path(name)}/kubeconfig", {"apiVersion": "v1", "kind": "Config"}, about=name
        )

    def usage(self, name: str) -> Object:
        """What the cluster uses of its quota."""
        return self._call("GET", f"{_path(name)}/usage", about=name)

    def tokens(self, cluster: str) -> Object:
        """All of them, however many answers they take."""
        path = f"{_path(cluster)}/tokens"
        found = self._call("GET", path, about=cluster)
        more = found["metadata"].pop("continue", "")
        while more:
            part = self._call("GET", f"{path}?continue={more}", about=cluster)
            found["items"] += part["items"]
            more = part["metadata"].get("continue", "")
        return found

    def create_token(self, cluster: str, token: Object) -> Object:
        return self._call("POST", f"{_path(cluster)}/tokens", token, about=cluster)

    def rotate_token(self, cluster: str, token: Object) -> Object:
        return self._call("PUT", f"{_path(cluster)}/tokens", token, about=cluster)

    def revoke_token(self, cluster: str, name: str) -> Object:
        return self._call("DELETE", f"{_path(cluster)}/tokens?name={quote(name, safe='')}", about=cluster)

    def raw(self, path: str) -> bytes:
        """What is at a path of the server, whatever the status."""
        headers = {"Authorization": f"Bearer {self.target.token}"} if self.target.token else {}
        return self._exchange("GET", self._url.path.rstrip("/") + path, None, headers)[1]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        accept: str = "application/json",
        about: str = "",
    ) -> Object:
        headers = {"Accept": accept, "User-Agent": f"clusterling/{__version__}"}
        if self.target.token:
            headers["Authorization"] = f"Bearer {self.target.token}"
        content = None
        if body is not None:
            headers["Content-Type"] = _MERGE if method == "PATCH" else "application/json"
            content = json.dumps(body).encode()
        code, answer = self._exchange(method, self._url.path.rstrip("/") + path, content, headers)
        try:
            document = json.loads(answer)
        except ValueError:
            document = None
        if code >= 400:
            # Groups that are not served get a page of text, as from upstream.
            raise self._refused(code, document if isinstance(document, dict) else {}, about)
        if not isinstance(document, dict):
            raise CliError(f"{self.target.server} answered with something that is not from this API")
        return document

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        try:
            if self._connection is None:
                self._connection = connection(self.target, self.timeout_s)
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read(_ANSWER_BYTES_MAX)
        except TimeoutError as error:
            raise CliError(
                f"{self.target.server} did not answer within {self.timeout_s:g}s",
                "wait longer with --timeout",
                Exit.TIMEOUT,
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise CliError(
                f"{self.target.server} shows a certificate that {self.target.source} does not trust:"
                f" {error.verify_message}",
                "use the kubeconfig that this server wrote",
            ) from error
        except ConnectionRefusedError as error:
            raise CliError(
                f"nothing listens at {self.target.server}", "start the server with `clusterling serve`"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise CliError(f"cannot reach {self.target.server}: {reason}") from error

    def _refused(self, code: int, status: Object, about: str) -> CliError:
        message = str(status.get("message") or f"the server answered {code}")
        if code == 401:
            return CliError(
                f"{self.target.source} is not let in by {self.target.server}",
                "use the admin.kubeconfig in the server's data directory",
            )
        if code == 403:
            # A user who may not; or, for anyone, what may not be done at all, as to delete `root`.
            refused = 'User "' in message
            return CliError(message, "only credentials of `root` administer clusters" if refused else "")
        if code == 404:
            details = status.get("details") or {}
            if details.get("kind") == "clustertokens":
                return CliError(
                    f"{about} has no token {details.get('name')}",
                    f"see `clusterling token list {about}`",
                    Exit.NOT_FOUND,
                )
            if details.get("name"):
                return _absent(about)
            return CliError(
                f"{self.target.server} serves no logical clusters",
                "use a kubeconfig of `root`, as admin.kubeconfig in the server's data directory is",
                Exit.NOT_FOUND,
            )
        if code == 409:
            exists = status.get("reason") == "AlreadyExists"
            if exists and (status.get("details") or {}).get("kind") == "clustertokens":
                return CliError(message, "rotate it, or choose another name", Exit.CONFLICT)
            text = f"there is a logical cluster {about} already" if exists else message
            return CliError(text, "add --if-not-exists to accept that" if exists else "", Exit.CONFLICT)
        if code in (408, 504):
            return CliError(message, "", Exit.TIMEOUT)
        return CliError(message)


def connection(target: Target, timeout_s: float, address: str = "") -> http.client.HTTPConnection:
    """A connection to be made to the target, or to one of its addresses, which is to show the same certificate.

    Raises ssl.SSLError where the target's CA is none.
    """
    url = urlsplit(target.server)
    host, port = url.hostname, url.port
    assert host is not None, "checked when the target was taken"
    if url.scheme == "http":
        return http.client.HTTPConnection(address or host, port or 80, timeout=timeout_s)
    context = ssl.create_default_context(cadata=target.ca_pem or None)
    if not target.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if target.server_name or address:
        name = target.server_name or host
        return _NamedConnection(address or host, port or 443, name, context, timeout_s)
    return http.client.HTTPSConnection(host, port or 443, timeout=timeout_s, context=context)


class _NamedConnection(http.client.HTTPSConnection):
    """A connection whose certificate is checked under another name than the host's (`tls-server-name`)."""

    def __init__(self, host: str, port: int, name: str, context: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s, context=context)
        self._name = name
        self._tls = context

    @override
    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._name)


def _absent(name: str) -> CliError:
    return CliError(f"there is no logical cluster {name}", "see `clusterling list`", Exit.NOT_FOUND)


def _path(name: str) -> str:
    if is_dns1123_label(name):
        # Nothing can have that name, and in a path it might name something else.
        raise _absent(repr(name))
    return f"{COLLECTION}/{name}"
