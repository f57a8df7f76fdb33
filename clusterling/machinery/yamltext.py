"""An answer in YAML: keys sorted, strings quoted wherever a YAML reader could take them for something else.

`yaml.py` is the way in. Upstream writes with sigs.k8s.io/yaml (go.yaml.in/yaml/v2, encode.go); what matters is that
every reader gets back the JSON value that went in, and PyYAML leaves `y` and `1e3` bare, which Go reads as true and 1000.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from clusterling.machinery.meta import Object

_AMBIGUOUS: Final = re.compile(
    r"[-+.0-9].*|[~=]|<<|null|y(es)?|n(o)?|true|false|o(n|ff)", re.IGNORECASE | re.DOTALL
)
_TAG: Final = "tag:yaml.org,2002:"


def dump(value: Object) -> bytes:
    """The JSON value as a YAML document in UTF-8."""
    import yaml

    text: str = yaml.dump(value, Dumper=_writer(), allow_unicode=True, sort_keys=True, width=80)
    return text.encode()


@cache
def _writer() -> Any:
    """PyYAML's C emitter with our scalars. Made at first use: the import costs 20 ms, and answers are rarely YAML."""
    import yaml

    class Writer(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Writer.add_representer(str, _text)
    Writer.add_representer(float, _number)
    return Writer


def _text(writer: Any, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif _AMBIGUOUS.fullmatch(text):
        style = '"'
    return writer.represent_scalar(f"{_TAG}str", text, style=style)


def _number(writer: Any, number: float) -> Any:
    text = repr(number)
    # YAML 1.1 reads no float without a point, so PyYAML would put a tag before 1e+22.
    text = text if "." in text else text.replace("e", ".0e")
    return writer.represent_scalar(f"{_TAG}float", text)
