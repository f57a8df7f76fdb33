"""For tests of operators, controllers and whatever else speaks Kubernetes: a fresh cluster as a pytest fixture.

Importing this costs nothing: pytest loads the plugin in every run, also in those that use none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterling.testing.kube import Kube as Kube
    from clusterling.testing.kube import KubeServer as KubeServer

__all__ = ["Kube", "KubeServer"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from clusterling.testing import kube

        return getattr(kube, name)
    raise AttributeError(name)
