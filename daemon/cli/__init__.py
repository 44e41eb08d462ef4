"""The command `stoker`.

Start-up is part of the answer's time: commands that only ask import neither the HTTP client nor the service.
"""

from .entry import main

__all__ = ["main"]
