"""What any layer may tell of the work it does: parts of a trace. It knows no library of tracing, and nothing above it."""
