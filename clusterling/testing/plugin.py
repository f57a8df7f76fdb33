"""pytest plugin: a fresh logical cluster as a fixture."""
