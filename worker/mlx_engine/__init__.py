"""The engine on mlx and mlx-lm. Importing it takes a second, so the worker says hello first.

`core` answers requests, on the one thread that owns every array: lazy arrays must not cross threads, and evaluating
in the main thread would deafen it. `scheduling` decides what is computed next; `prefill` and `decoding` compute.
"""

from __future__ import annotations
