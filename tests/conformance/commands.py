"""The same kubectl commands told to a real kube-apiserver and to this checkout, and what was printed, line by line.

`commands.txt` has them by theme, each theme in a namespace of its own; `kinds/*.yaml` has an object of every kind, which is
created, shown (`get -o wide`, `get -o yaml`, `describe`) and deleted. What no two servers share is masked.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.conformance.differing import ABSENT, Difference
from tests.e2e.clusters import Cluster

HERE: Final = Path(__file__).parent
SCRIPT: Final = HERE / "commands.txt"
KINDS: Final = HERE / "kinds"
AT_ONCE: Final = 2  # Themes that are told to each side at once.

_UID: Final = re.compile(r"\$\{([a-z]+/[a-z0-9.-]+)\}")
_MASKS: Final = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uid>"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d [+-]\d{4}"), "<time>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} UTC"), "<time>"),
    (re.compile(r"(resourceVersion: \"?|Resource Version: +)\d+"), r"\1<revision>"),
    (re.compile(r"\b(kube-api-access-)[a-z0-9]{5}\b"), r"\1<random>"),
    (re.compile(r"(?<![\w.-])(\d+[smhd])+( ago)?(?![\w.-])"), "<age>"),
    (re.compile(r"https://127\.0\.0\.1:\d+(/clusters/\w+)?"), "<server>"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"), "<token>"),
)
_SPACES: Final = re.compile(r"[ \t]+")
# The table's columns are as wide as what they show, and that is masked.
_TABLE: Final = re.compile(r"^kubectl (get|api-resources|top|describe)\b(?!.*-o (yaml|json))")


@dataclass(frozen=True)
class Command:
    """One kubectl call: its arguments as they are typed, and what it reads."""

    line: str
    stdin: str = ""

    @property
    def title(self) -> str:
        return f"kubectl {self.line}"


@dataclass(frozen=True)
class Theme:
    """Commands in order, in a namespace."""

    title: str
    namespace: str
    commands: Sequence[Command]


def themes() -> list[Theme]:
    """What is told, in the order of the files."""
    return [*_scripted(SCRIPT.read_text()), *(_of_kinds(path) for path in sorted(KINDS.glob("*.yaml")))]


def _scripted(text: str) -> Iterator[Theme]:
    """`[title]`, then a command a line; what follows a command and begins with `|` is what it reads."""
    title, commands = "", list[Command]()
    for line in [*text.splitlines(), "[]"]:
        if line.startswith("["):
            if commands:
                yield Theme(title, re.sub(r"[^a-z]+", "-", title.lower()).strip("-"), tuple(commands))
            title, commands = line.strip("[]"), []
        elif line.startswith("|"):
            last = commands[-1]
            commands[-1] = Command(last.line, last.stdin + line[1:].removeprefix(" ") + "\n")
        elif line.strip() and not line.startswith("#"):
            commands.append(Command(line.strip()))


def _of_kinds(path: Path) -> Theme:
    """Each object of the file: created, shown in all ways, deleted at the end, the last first."""
    commands, deletions = list[Command](), list[Command]()
    for document in yaml.safe_load_all(path.read_text()):
        api_version, kind = str(document["apiVersion"]), str(document["kind"])
        group, _, version = api_version.rpartition("/")
        name = document["metadata"].get("name", "")
        what = f"{kind.lower()}.{version}.{group}".rstrip(".") if group else kind.lower()
        commands.append(Command("create -f -", yaml.safe_dump(document, sort_keys=False)))
        if name:
            commands += [
                Command(f"get {what} {name} -o wide"),
                Command(f"get {what} {name} -o yaml"),
                Command(f"describe {what} {name}"),
            ]
            deletions.insert(0, Command(f"delete {what} {name} --wait=false"))
    return Theme(f"kinds of {path.stem}", f"kinds-{path.stem}", (*commands, *deletions))


def tell(cluster: Cluster, theme: Theme) -> list[str]:
    """What each command printed, with its exit code, masked."""
    cluster.kubectl("create", "namespace", theme.namespace, code=None)
    # Beside the real server no controller makes it, and without it there are no pods.
    cluster.kubectl("create", "serviceaccount", "default", "-n", theme.namespace, code=None)
    return [_told(cluster, theme.namespace, command) for command in theme.commands]


def _told(cluster: Cluster, namespace: str, command: Command) -> str:
    def uid(match: re.Match[str]) -> str:
        return cluster.kubectl("get", match[1], "-n", namespace, "-o", "jsonpath={.metadata.uid}", code=None)

    stdin = _UID.sub(uid, command.stdin) if command.stdin else None
    arguments = [*shlex.split(command.line), "-n", namespace]
    code, stdout, stderr = cluster.kubectl_whole(*arguments, stdin=stdin)
    return masked(command, f"{stdout}{stderr}exit {code}")


def masked(command: Command, text: str) -> str:
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return _SPACES.sub(" ", text) if _TABLE.match(command.title) else text


def compare(theirs: Cluster, ours: Cluster) -> tuple[int, list[Difference]]:
    """How many commands were told to both, and the lines that differ."""
    told = themes()
    with ThreadPoolExecutor(AT_ONCE) as one, ThreadPoolExecutor(AT_ONCE) as other:
        theirs_told = one.map(lambda theme: tell(theirs, theme), told)
        ours_told = other.map(lambda theme: tell(ours, theme), told)
        found = [
            difference
            for theme, left, right in zip(told, theirs_told, ours_told, strict=True)
            for command, before, after in zip(theme.commands, left, right, strict=True)
            for difference in _lines(f"[{theme.title}] {_subject(command)}", before, after)
        ]
    return sum(len(theme.commands) for theme in told), found


def _subject(command: Command) -> str:
    kind = re.search(r"^kind: (\w+)$", command.stdin, re.MULTILINE)
    return f"{command.title} ({kind[1]})" if kind else command.title


def _lines(subject: str, theirs: str, ours: str) -> Iterator[Difference]:
    """The runs of lines that differ."""
    one, other = theirs.splitlines(), ours.splitlines()
    for what, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if what != "equal":
            left, right = ("⏎".join(lines) if lines else ABSENT for lines in (one[a:b], other[c:d]))
            yield Difference(subject, "", left, right)
