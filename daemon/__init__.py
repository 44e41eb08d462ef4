"""The supervisor: starts, warms, watches, serves and restarts a worker. Never imports an engine."""
