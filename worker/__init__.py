"""The process that owns the model: loads it, keeps prefixes warm, generates. It serves one daemon connection.

Only `mlx_engine` (and `embedded`, which it imports when it needs it) knows mlx; everything else is plain Python.
"""
