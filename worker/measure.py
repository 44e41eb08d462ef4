"""How fast the machine computes for a process that is not the worker: `python -m stoker.worker.measure`.

`stoker doctor` runs it from the user's shell, in the environment that a worker would get, and compares it with what
the worker says of itself. It loads no model, and prints one JSON object.
"""

from __future__ import annotations

import sys

import msgspec


def main() -> None:
    """Print what is measured."""
    from .mlx_engine.speed import measured  # noqa: PLC0415 - whoever only looks at this module needs no mlx

    sys.stdout.write(msgspec.json.encode(measured()).decode() + "\n")


if __name__ == "__main__":
    main()
