"""The same kubectl commands told to a real kube-apiserver and to this checkout, and what was printed, line by line.

`commands.txt` has them by theme, each theme in a namespace of its own; `kinds/*.yaml` has an object of every kind, which is
created, shown (`get -o wide`, `yaml`, `json` and `name`, `describe`) and deleted. What no two servers share is masked.
"""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.conformance.differing import ABSENT, Difference
from tests.e2e.clusters import Cluster
from tests.storage.certificates import certificates

HERE: Final = Path(__file__).parent
SCRIPT: Final = HERE / "commands.txt"
KINDS: Final = HERE / "kinds"
AT_ONCE: Final = 2  # Themes that are told to each side at once.

ROOT_CA: Final = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: kube-root-ca.crt
  annotations:
    kubernetes.io/description: Contains a CA bundle that can be used to verify the kube-apiserver when using internal
      endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across
      distributions of Kubernetes clusters.
data:
  ca.crt: |
    -----BEGIN CERTIFICATE-----
    -----END CERTIFICATE-----
"""

_VARIABLE: Final = re.compile(r"[A-Z]+=")
_UID: Final = re.compile(r"\$\{([a-z]+/[a-z0-9.-]+)\}")
_MASKS: Final = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<uid>"),
    (re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "<time>"),
    (re.compile(r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d [+-]\d{4}"), "<time>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4}( UTC)?"), "<time>"),
    (re.compile(r"(resourceVersion\"?: \"?|Resource Version: +)\d+"), r"\1<revision>"),
    (re.compile(r"(/tmp/(?:LIVE|MERGED)-)\d+"), r"\1<random>"),
    # A watch that kubectl itself ends sooner or later than its patience.
    (re.compile(r"^I\d{4} [^\n]*reflector\.go[^\n]*\n", re.MULTILINE), ""),
    (re.compile(r"^[IWE]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ", re.MULTILINE), "<log> "),
    # A patched object, in messages: it has uids, revisions and who manages what.
    (re.compile(r'Invalid value: "\{(?:[^"\\]|\\.)*"'), 'Invalid value: "<document>"'),
    (re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\\?n?", re.DOTALL), "<certificate>"),
    (re.compile(r"(/tmp/kubectl-edit-)\d+"), r"\1<random>"),
    (re.compile(r"\b(made-)[a-z0-9]{5}\b"), r"\1<random>"),
    (re.compile(r"\b(kube-api-access-)[a-z0-9]{5}\b"), r"\1<random>"),
    (re.compile(r"(?<![\w.-])(\d+[smhd])+( ago)?(?![\w.-])"), "<age>"),
    (re.compile(r"https://127\.0\.0\.1:\d+(/clusters/\w+)?"), "<server>"),
    (re.compile(r"\b(eyJ[\w-]+\.[\w-]+\.[\w-]+|clst_[\w-]{43})"), "<token>"),
    (re.compile(r"\b10\.0\.0\.\d+\b"), "<address>"),
    (re.compile(r"(Expected resource version to be 1, was )\d+"), r"\1<revision>"),
)
_SPACES: Final = re.compile(r"[ \t]+")
# The table's columns are as wide as what they show, and that is masked.
_TABLE: Final = re.compile(r"^kubectl (get|api-resources|top|describe)\b(?!.*-o (yaml|json))")


@dataclass(frozen=True)
class Command:
    """One kubectl call: its arguments as they are typed (variables before them), and what it reads."""

    line: str
    stdin: str = ""

    @property
    def title(self) -> str:
        return f"kubectl {self.line}"

    @property
    def kind(self) -> str:
        """The kind of the object that it reads; "" where it reads none."""
        found = re.search(r"^kind: (\w+)$", self.stdin, re.MULTILINE)
        return found[1] if found else ""

    def arguments(self, files: Path) -> tuple[list[str], dict[str, str]]:
        """What kubectl is called with, and its variables."""
        words = shlex.split(self.line.replace("${files}", str(files)))
        count = next(index for index, word in enumerate(words) if not _VARIABLE.match(word))
        return words[count:], dict(word.split("=", 1) for word in words[:count])


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
                Command(f"get {what} {name} -o json"),
                Command(f"get {what} {name} -o name"),
                Command(f"describe {what} {name}"),
            ]
            deletions.insert(0, Command(f"delete {what} {name} --wait=false"))
    return Theme(f"kinds of {path.stem}", f"kinds-{path.stem}", (*commands, *deletions))


def write_files(directory: Path) -> Path:
    """What commands read from `${files}`: made once, the same for both."""
    directory.mkdir()
    made = certificates(directory / "made")
    made["client"].rename(directory / "tls.crt")
    made["client-key"].rename(directory / "tls.key")
    (directory / "config.env").write_text("# a comment\nCOLOUR=red\nSIZE=1 2\n")
    return directory


def tell(cluster: Cluster, theme: Theme, files: Path) -> list[str]:
    """What each command printed, with its exit code, masked."""
    cluster.kubectl("create", "namespace", theme.namespace, code=None)
    # Beside the real server no controller makes them, and without the account there are no pods.
    cluster.kubectl("create", "serviceaccount", "default", "-n", theme.namespace, code=None)
    cluster.kubectl("create", "-f", "-", "-n", theme.namespace, stdin=ROOT_CA, code=None)
    return [_told(cluster, theme.namespace, command, files) for command in theme.commands]


def _told(cluster: Cluster, namespace: str, command: Command, files: Path) -> str:
    def uid(match: re.Match[str]) -> str:
        return cluster.kubectl("get", match[1], "-n", namespace, "-o", "jsonpath={.metadata.uid}", code=None)

    stdin = _UID.sub(uid, command.stdin) if command.stdin else None
    words, variables = command.arguments(files)
    if not {"-n", "--raw"} & set(words):
        # What stands behind -- is not for kubectl.
        words[1:1] = ["-n", namespace]
    try:
        code, stdout, stderr = cluster.kubectl_whole(*words, stdin=stdin, env=variables)
    except subprocess.TimeoutExpired:
        return "(goes on and on)"
    return masked(command, f"{stdout}{stderr}\nexit {code}")


def masked(command: Command, text: str) -> str:
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return _SPACES.sub(" ", text) if _TABLE.match(command.title) else text


def compare(theirs: Cluster, ours: Cluster) -> tuple[int, list[Difference]]:
    """How many commands were told to both, and the lines that differ."""
    told = themes()
    with (
        tempfile.TemporaryDirectory() as name,
        ThreadPoolExecutor(AT_ONCE) as one,
        ThreadPoolExecutor(AT_ONCE) as other,
    ):
        files = write_files(Path(name) / "files")
        first = [tell(cluster, told[0], files) for cluster in (theirs, ours)]
        of_theirs = one.map(lambda theme: tell(theirs, theme, files), told[1:])
        of_ours = other.map(lambda theme: tell(ours, theme, files), told[1:])
        theirs_told, ours_told = [first[0], *of_theirs], [first[1], *of_ours]
        found = [
            difference
            for theme, left, right in zip(told, theirs_told, ours_told, strict=True)
            for command, before, after in zip(theme.commands, left, right, strict=True)
            for difference in _lines(f"[{theme.title}] {_subject(command)}", before, after)
        ]
    return sum(len(theme.commands) for theme in told), found


def _subject(command: Command) -> str:
    return f"{command.title} ({command.kind})" if command.kind else command.title


def _lines(subject: str, theirs: str, ours: str) -> Iterator[Difference]:
    """The runs of lines that differ."""
    one, other = theirs.splitlines(), ours.splitlines()
    for what, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if what != "equal":
            left, right = ("⏎".join(lines) if lines else ABSENT for lines in (one[a:b], other[c:d]))
            yield Difference(subject, "", left, right)
