"""Where traces go: OpenTelemetry's SDK, and OTLP over HTTP. Loaded only where traces were asked for.

They are by `--tracing-endpoint` or by the variables of OpenTelemetry's specification (`OTEL_EXPORTER_OTLP_ENDPOINT` and its
kin), which also say the rest: headers and certificates for the collector, the service's name, limits, batches. Spans are
sent by a thread, in batches; what a collector does not take in time is dropped, and no request waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from clusterling.cli.errors import CliError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import TracerProvider

_log = logging.getLogger(__name__)

SAMPLING: Final = 0.01  # Of the requests that nobody trusted says anything of.
VALUE_CHARACTERS_MAX: Final = 1024
FLUSH_S: Final = 3.0  # At the end, for a collector to take what is left.
TRACES_PATH: Final = "/v1/traces"
SERVICE: Final = "clusterling"


def check_endpoint(url: str) -> str:
    """Why this is no base URL of a collector; "" where it is one."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment):
        return ""
    return "this is no URL as in http://collector.example.com:4318"


def wanted(endpoint: str) -> bool:
    """Whether to trace: the flag says so, or the environment does."""
    if endpoint:
        return True
    said = os.environ.get
    if (said("OTEL_SDK_DISABLED") or "").strip().lower() == "true":
        return False
    exporter = (said("OTEL_TRACES_EXPORTER") or "").strip().lower()
    if exporter not in ("", "otlp"):
        if exporter != "none":
            _log.warning("tracing-off exporter=%s reason=%s", exporter, "only otlp is supported")
        return False
    if not (exporter or said("OTEL_EXPORTER_OTLP_ENDPOINT") or said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return False
    protocol = said("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or said("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in (None, "", "http/protobuf"):
        _log.warning("tracing-off protocol=%s reason=%s", protocol, "only http/protobuf is supported")
        return False
    return True


@contextmanager
def tracing(endpoint: str, sampling: float | None) -> Iterator[TracerProvider | None]:
    """What makes spans, or None where none are wanted; at the end what is left is sent.

    `endpoint`: a collector's base URL; "" what the environment names. `sampling`: the share of requests to record of those
    that nobody trusted decided on; None what the environment says, else `SAMPLING`. Raises CliError.
    """
    if not wanted(endpoint):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        if not endpoint:
            # The environment may be everybody's here: no reason not to serve.
            _log.warning("tracing-off reason=%s", f"pip install 'clusterling[tracing]': {error}")
            yield None
            return
        raise CliError(
            f"tracing needs a library that is not there: {error}", "pip install 'clusterling[tracing]'"
        ) from error
    try:
        processor = BatchSpanProcessor(OTLPSpanExporter(_traces_url(endpoint) or None))
        limit = None if "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" in os.environ else VALUE_CHARACTERS_MAX
        provider = TracerProvider(
            sampler=_sampler(sampling),
            resource=Resource.create(_names()),
            span_limits=SpanLimits(max_attribute_length=limit),
            shutdown_on_exit=False,
        )
    except (ValueError, OSError) as error:
        raise CliError(f"cannot trace: {error}", "see --tracing-endpoint and the OTEL_* variables") from error
    provider.add_span_processor(processor)
    try:
        yield provider
    finally:
        # By a thread that the process does not wait for: it would take half a minute where the collector is away.
        last = threading.Thread(target=processor.shutdown, name="last traces", daemon=True)
        last.start()
        last.join(FLUSH_S)


def _traces_url(endpoint: str) -> str:
    """OTLP's path below a base URL, as the variables of the specification have it."""
    base = endpoint.rstrip("/")
    return base if not base or base.endswith(TRACES_PATH) else base + TRACES_PATH


def _sampler(sampling: float | None) -> Sampler | None:
    """None: the SDK reads `OTEL_TRACES_SAMPLER`."""
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    if sampling is None and os.environ.get("OTEL_TRACES_SAMPLER"):
        return None
    return ParentBasedTraceIdRatio(SAMPLING if sampling is None else sampling)


def _names() -> dict[str, str]:
    """What the environment does not say of this process."""
    from clusterling.version import __version__

    said = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    names = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in said:
        names["service.name"] = SERVICE
    return names
