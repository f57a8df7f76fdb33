"""The reference of settings, from the flags of the command line, which are the settings.

python -m tools.config_docs            writes it
python -m tools.config_docs --check    says whether it is as it would be written
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from clusterling.cli.program import VERBS, program

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "config.md"

_HEAD: Final = """\
# Settings

<!-- Written by `make config-docs` from the flags of the command line. -->

All settings of a server are flags of `clusterling serve`. Each can be given as a variable, and in the YAML file that `--config` or
`CLUSTERLING_CONFIG` names; a flag goes before the variable, and the variable before the file. A name that is none in the file, and
a value that cannot be, end the start with what is wrong and exit code 2. In the file, what may be repeated is a list; in a variable it is separated
by blanks. Everything else that can be changed is an object: [`LogicalCluster`](api.md), and what is in it.

A server takes no setting over while it runs, but for what files hold: the certificate of `--tls-cert` and the clusters of `--clusters`
are read again when they change.

## Of the server

"""

_ELSEWHERE: Final = """\

## Of the command line

The other verbs take these variables in the place of flags; [what the flags do](cli.md).

"""

# What is read from the environment by no flag.
OTHERS: Final[dict[str, str]] = {
    "CLUSTERLING_STORE_PASSWORD": "the store's password, where `--store-password-file` names no file",
    "CLUSTERLING_FROM_PASSWORD": "of `store copy`: the password of the store copied from, where no file is named",
    "CLUSTERLING_TO_PASSWORD": "the same, of the store copied to",
    "KUBECONFIG": "whose contexts `connect`, `use` and `disconnect` change; what `check-server` and `dev` speak of",
    "NO_COLOR": "anything but nothing: no colours",
    "TERM": "`dumb`: no colours",
    "OTEL_EXPORTER_OTLP_*": "where traces go, and how, as OpenTelemetry defines them; any of them that names an endpoint turns tracing on",
    "OTEL_TRACES_EXPORTER": "`otlp` turns tracing on, `none` off, where no flag does",
    "OTEL_SDK_DISABLED": "`true` turns tracing off, where no flag turns it on",
    "OTEL_TRACES_SAMPLER": "which requests are traced, where `--tracing-sampling` does not say",
    "OTEL_SERVICE_NAME": "what traces call the service, else `clusterling`",
    "OTEL_RESOURCE_ATTRIBUTES": "what else traces say of the process",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "how many characters of a value traces tell",
}


def page() -> str:
    """The whole page."""
    serve = _command("serve")
    options = [one for one in serve.params if isinstance(one, click.Option)]
    rows = [_row(one) for one in options]
    head = "| flag | variable | in the file | takes | default | |\n|---|---|---|---|---|---|\n"
    return _HEAD + head + "".join(rows) + _ELSEWHERE + _variables() + _others()


def _command(verb: str) -> click.Command:
    found = program.get_command(click.Context(program), verb)
    if found is None:
        raise LookupError(verb)
    return found


def _row(option: click.Option) -> str:
    name = _long(option)
    # Which file is read cannot stand in it.
    key = f"`{name.removeprefix('--')}`" if option.expose_value else ""
    default = (
        ""
        if option.default in (None, "", ()) or option.is_flag or not option.show_default
        else option.default
    )
    shown = f"`{default}`" if default != "" else ""
    cells = [
        f"`{name}`",
        f"`{option.envvar}`" if option.envvar else "",
        key,
        _takes(option),
        shown,
        option.help or "",
    ]
    return f"| {' | '.join(_cell(one) for one in cells)} |\n"


def _long(option: click.Parameter) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _takes(option: click.Option) -> str:
    if option.is_flag:
        return "nothing, or `true`"
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{one}`" for one in option.type.choices)
    if isinstance(option.type, click.FloatRange | click.IntRange):
        least, most = option.type.min, option.type.max
        bounds = (
            f", {least} to {most}" if most is not None else f", {least} or more" if least is not None else ""
        )
        return f"{option.metavar or option.type.name.upper()}{bounds}"
    return (option.metavar or option.type.name.upper()) + (", repeated" if option.multiple else "")


def _commands() -> Iterator[tuple[str, click.Command]]:
    for verb in VERBS:
        command = _command(verb)
        yield verb, command
        if isinstance(command, click.Group):
            for name, below in command.commands.items():
                yield f"{verb} {name}", below


def _variables() -> str:
    found: dict[tuple[str, str], dict[str, None]] = {}
    for verb, command in _commands():
        if verb == "serve":
            continue
        for option in command.params:
            if isinstance(option.envvar, str):
                found.setdefault((option.envvar, _long(option)), {})[f"`{verb.partition(' ')[0]}`"] = None
    rows = [
        f"| `{name}` | `{flag}` | {', '.join(verbs)} |\n" for (name, flag), verbs in sorted(found.items())
    ]
    return "| variable | flag | of |\n|---|---|---|\n" + "".join(rows)


def _others() -> str:
    rows = [f"| `{name}` | {meaning} |\n" for name, meaning in OTHERS.items()]
    return "\n## Without a flag\n\n| variable | |\n|---|---|\n" + "".join(rows)


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text() == page() else f"{PAGE.name} is not what `make config-docs` writes")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
