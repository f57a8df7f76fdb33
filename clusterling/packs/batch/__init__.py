"""batch/v1: jobs, and cron jobs that make them."""

from __future__ import annotations

from typing import Final

from clusterling.packs.batch.cronjobs import CRONJOBS
from clusterling.packs.batch.jobs import JOBS
from clusterling.registry.pack import Pack

PACK: Final = Pack("batch", (CRONJOBS, JOBS))
