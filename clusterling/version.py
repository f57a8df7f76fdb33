"""The versions this release speaks of: its own, and the Kubernetes it serves.

`KUBERNETES` is the one place where the served version is pinned: `/version`, the data compiler in
`tools/` and the clients that the tests build read it here.
"""

__version__ = "0.1.0"

KUBERNETES = "1.37.2"
