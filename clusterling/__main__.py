"""`python -m clusterling`."""

from clusterling.cli import main

main()
