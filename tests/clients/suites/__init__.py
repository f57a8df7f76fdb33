"""The client libraries' own tests, and programs written with them, against a cluster with all packs."""
