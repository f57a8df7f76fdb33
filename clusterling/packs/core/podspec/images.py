"""Names of images, as far as the API looks into them: has it a tag, and which.

Grammar: github.com/distribution/reference (ParseNormalizedNamed). Upstream: kubernetes pkg/util/parsers.
"""

from __future__ import annotations

import re
from typing import Final

# Longer than any name (255), tag (128) and digest that is in use.
_CHARACTERS_MAX: Final = 2048
_NAME_CHARACTERS_MAX: Final = 255
_DEFAULT_DOMAIN: Final = "docker.io"

_is_identifier = re.compile(r"[a-f0-9]{64}").fullmatch
_path = re.compile(
    r"(?P<path>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?"
).fullmatch
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_is_domain = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?").fullmatch


def tag_of(image: str) -> str:
    """The image's tag, `latest` where it has neither tag nor digest, "" where it has a digest alone or is no name."""
    if len(image) > _CHARACTERS_MAX or _is_identifier(image):
        return ""
    domain, rest = _split(image)
    found = _path(rest)
    if found is None or not _is_domain(domain) or len(domain) + 1 + len(found["path"]) > _NAME_CHARACTERS_MAX:
        return ""
    return found["tag"] or ("" if found["digest"] else "latest")


def _split(image: str) -> tuple[str, str]:
    """What comes before the first slash is a domain where it looks like one."""
    first, slash, rest = image.partition("/")
    looks = "." in first or ":" in first or first == "localhost" or first.lower() != first
    return (first, rest) if slash and looks else (_DEFAULT_DOMAIN, image)
