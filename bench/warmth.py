"""The benchmark: cold against warm over HTTP, time to ready, the daemon's own cost. See docs/benchmarks.md.

make bench
python bench/warmth.py --help
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script, Python knows this folder, not its parent

from bench.command import main  # noqa: E402 - after the line above

if __name__ == "__main__":
    sys.exit(main("warmth"))
