"""Who may do what. Until RBAC is served there are two rights: over the whole platform, and over one logical cluster.

`root`'s administrators may do everything everywhere; a credential issued for a cluster with the group
`system:masters` may do everything in that cluster. All else is refused. (Health and version need no right.)
"""

from __future__ import annotations

from typing import Final

from clusterling.registry.strategy import User
from clusterling.tenancy.names import ROOT_ID

MASTERS: Final = "system:masters"

# The administrator of the platform, as the data directory's kubeconfig and the in-process client present themselves.
ADMIN: Final = User("clusterling:admin", (MASTERS, "system:authenticated"), realm=ROOT_ID)


def allows(user: User, cluster_id: str | None) -> bool:
    """Whether the user may do anything at all on that cluster; `cluster_id` None: there is no such cluster."""
    return cluster_id is not None and MASTERS in user.groups and user.realm in (ROOT_ID, cluster_id)
