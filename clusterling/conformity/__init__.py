"""What clients assume of a Kubernetes API and no document says, as checks that run against any server.

Each row is one assumption with an id that stays. `check_server` runs rows against a server and returns what it saw;
`clusterling check-server` is that as a command, and docs/reference/conformity.md its page. Nothing here knows the server
of this project: it speaks HTTP, and needs credentials that may do all in a namespace and define custom kinds.
"""

from clusterling.conformity.report import as_document, as_page
from clusterling.conformity.row import Outcome, Result, Row
from clusterling.conformity.run import ROWS, SECTIONS, Report, check_server, chosen
from clusterling.conformity.wire import Unreachable, Wire

__all__ = [
    "ROWS",
    "SECTIONS",
    "Outcome",
    "Report",
    "Result",
    "Row",
    "Unreachable",
    "Wire",
    "as_document",
    "as_page",
    "check_server",
    "chosen",
]
