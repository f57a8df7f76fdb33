"""The user's own kubeconfig: entries of ours put in beside everything that is there, without harm to it.

Files are edited as text, an entry at a time, so that comments, order and style of all else stay. What came out is read
again, and where that is not exactly what was to be, nothing is written: people's credentials are in these files. Files are
found, locked and chosen as kubectl does it (client-go: tools/clientcmd/config.go, loader.go).
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from clusterling.cli.errors import CliError, Exit
from clusterling.machinery.meta import Object

LOCK_S: Final = 20.0  # How long others may hold a file's lock.
_LOCK_LOOK_S: Final = 0.02
_SECTIONS: Final = ("clusters", "users", "contexts")
_CURRENT: Final = "current-context"
_FILE_BYTES_MAX: Final = 8 * 1024 * 1024


def files() -> list[Path]:
    """Where the user's kubeconfig is: what KUBECONFIG names, else `~/.kube/config`."""
    named = [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return list(dict.fromkeys(named)) or [Path.home() / ".kube" / "config"]


class Kubeconfigs:
    """The user's files, locked and read. Changes are kept until `write`."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._before = {path: _read(path) for path in paths}
        self._texts = dict(self._before)
        self._documents = {path: _parsed(path, text) for path, text in self._texts.items()}

    @property
    def current(self) -> str:
        """The context in use, "" none: that of the first file that names one."""
        return next((found for one in self._documents.values() if (found := one.get(_CURRENT))), "")

    def contexts(self) -> dict[str, str]:
        """The server of each context by its name; of equal names the first counts."""
        servers: dict[str, str] = {}
        for entry in self._all("clusters"):
            servers.setdefault(entry["name"], str((entry.get("cluster") or {}).get("server") or ""))
        found: dict[str, str] = {}
        for entry in self._all("contexts"):
            cluster = str((entry.get("context") or {}).get("cluster") or "")
            found.setdefault(entry["name"], servers.get(cluster, ""))
        return found

    def merge(self, config: Object) -> None:
        """Puts the entries of a kubeconfig in, each in the place of the one of its name, or into the file for new ones."""
        for section in _SECTIONS:
            for entry in config[section]:
                self._put(self._home_of(section, entry["name"]), section, entry)

    def switch(self, context: str) -> None:
        """Makes that the context in use; "" none. Nothing else changes."""
        path = next((one for one, document in self._documents.items() if document.get(_CURRENT)), None)
        path = path or self._for_new()
        document = copy.deepcopy(self._documents[path])
        document[_CURRENT] = context
        text = _with_current(self._texts[path], context)
        self._accept(path, text, document)

    def write(self) -> None:
        """Writes the files that changed, each whole or not at all, readable by their owner alone."""
        for path, text in self._texts.items():
            if text != self._before[path]:
                _replace(path, text)

    def _all(self, section: str) -> Iterator[Any]:
        for document in self._documents.values():
            for entry in document.get(section) or ():
                if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                    yield entry

    def _for_new(self) -> Path:
        """kubectl's choice: the first file that is there, else the last one named."""
        there = [path for path in self._paths if path.exists()]
        return there[0] if there else self._paths[-1]

    def _home_of(self, section: str, name: str) -> Path:
        for path, document in self._documents.items():
            if any(isinstance(one, dict) and one.get("name") == name for one in document.get(section) or ()):
                return path
        return self._for_new()

    def _put(self, path: Path, section: str, entry: Object) -> None:
        document = copy.deepcopy(self._documents[path])
        entries = document.get(section) or []
        at = next((i for i, one in enumerate(entries) if one.get("name") == entry["name"]), len(entries))
        if at < len(entries) and entries[at] == entry:
            return
        entries[at : at + 1] = [entry]
        document[section] = entries
        text = self._texts[path]
        if not text.strip():
            text = "apiVersion: v1\nkind: Config\n"
            document = {"apiVersion": "v1", "kind": "Config", **document}
        self._accept(path, _with_entry(text, section, at, entry), document)

    def _accept(self, path: Path, text: str | None, document: Object) -> None:
        """Takes the text over if it says what the document does; else writes all anew where that loses nothing."""
        if text is None or _parsed_or_none(text) != document:
            text = _anew(self._texts[path], document)
        if text is None:
            raise CliError(
                f"{path} is written in a way that cannot be changed without losing what is in it",
                "name another file in KUBECONFIG, or use `clusterling kubeconfig`",
            )
        self._texts[path], self._documents[path] = text, document


@contextlib.contextmanager
def locked(paths: list[Path]) -> Iterator[Kubeconfigs]:
    """The files, nobody else's to change meanwhile. Raises CliError where another program keeps one locked."""
    with contextlib.ExitStack() as stack:
        for path in sorted(paths):
            stack.enter_context(_lock(path))
        yield Kubeconfigs(paths)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """kubectl's lock: a file `<path>.lock` that only one can make."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + LOCK_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError as error:
            if time.monotonic() >= deadline:
                raise CliError(
                    f"{path} is locked by another program",
                    f"if there is none, remove {lock}",
                    Exit.CONFLICT,
                ) from error
            time.sleep(_LOCK_LOOK_S)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise CliError(f"{path} is not text") from error
    if len(text) > _FILE_BYTES_MAX:
        raise CliError(f"{path} is too large to be a kubeconfig")
    return text


def _replace(path: Path, text: str) -> None:
    # What a link leads to is what is written; the link stays.
    path = path.resolve()
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _parsed(path: Path, text: str) -> Object:
    found = _parsed_or_none(text)
    if found is None:
        raise CliError(f"{path} is not a kubeconfig", "see `kubectl config view`")
    return found


def _parsed_or_none(text: str) -> Object | None:
    import yaml

    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  (safe loaders)
    except (yaml.YAMLError, RecursionError):
        return None
    found = {} if found is None else found
    if not isinstance(found, dict):
        return None
    lists = (found.get(section) or [] for section in _SECTIONS)
    if not all(isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in lists):
        return None
    return found


def _anew(text: str, document: Object) -> str | None:
    """All of it, in the style that it has; None where that would lose comments, anchors or tags."""
    if text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except ValueError:
            return None
        written = json.dumps(document, indent=4, ensure_ascii=False, default=str) + "\n"
    elif "#" in text or "&" in text or "!" in text:
        return None
    else:
        import yaml

        written = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return written if _parsed_or_none(written) == document else None


def _values(text: str) -> dict[str, Any]:
    """The nodes of the top-level values, by key."""
    import yaml

    # Not the parser in C, whose places are of bytes.
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return {key.value: value for key, value in node.value} if node is not None else {}


def _with_entry(text: str, section: str, at: int, entry: Object) -> str | None:
    """The text with an entry put at that place of a section, or at its end; None where it has no form for that."""
    import yaml

    if text.lstrip().startswith("{"):
        return None
    text += "" if text.endswith("\n") else "\n"
    node = _values(text).get(section)
    if node is None:
        return f"{text}{section}:\n{_lines(entry, 0)}"
    if not node.value:
        # Nothing, or `[]`: its entries go where it was.
        return f"{text[: node.start_mark.index].rstrip(' ')}\n{_lines(entry, 0)}{text[node.end_mark.index :].lstrip(chr(10))}"
    if not isinstance(node, yaml.SequenceNode) or node.flow_style:
        return None
    lines = text.splitlines(keepends=True)
    indent = node.start_mark.column
    if any(not lines[item.start_mark.line].startswith(f"{' ' * indent}-") for item in node.value):
        # An alias, whose place is elsewhere, or a dash on a line of its own.
        return None
    if at == len(node.value):
        end = _end(lines, node.value[-1])
        return "".join([*lines[:end], _lines(entry, indent), *lines[end:]])
    old = node.value[at]
    return "".join([*lines[: old.start_mark.line], _lines(entry, indent), *lines[_end(lines, old) :]])


def _end(lines: list[str], item: Any) -> int:
    """The line after an item's last; what comments follow it are not its own."""
    end: int = item.end_mark.line
    while end > item.start_mark.line + 1 and (
        not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")
    ):
        end -= 1
    return end


def _lines(entry: Object, indent: int) -> str:
    import yaml

    written = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=1 << 20)
    return "".join(f"{' ' * indent}{line}" for line in written.splitlines(keepends=True))


def _with_current(text: str, context: str) -> str | None:
    if text.lstrip().startswith("{"):
        return None
    node = _values(text).get(_CURRENT) if text.strip() else None
    quoted = json.dumps(context)
    if node is None:
        text += "" if text.endswith("\n") or not text else "\n"
        return f"{text}{_CURRENT}: {quoted}\n"
    before = text[: node.start_mark.index]
    space = "" if before.endswith(" ") else " "
    return f"{before}{space}{quoted}{text[node.end_mark.index :]}"
