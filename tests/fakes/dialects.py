"""What each end of the connections takes, for tests of the protocol."""

from __future__ import annotations

from stoker.ipc.framing import Dialect
from stoker.ipc.messages import (
    Cancel,
    CountTokens,
    Forget,
    Generate,
    Hello,
    Load,
    Pin,
    Prefixes,
    Progress,
    Statistics,
    Step,
    Warm,
    Welcome,
    WorkerResult,
)

WORKER = Dialect(
    requests=[Load, Warm, Generate, CountTokens, Statistics, Prefixes, Pin, Forget],
    notifications=[Cancel],
    results=Welcome,
)
DAEMON = Dialect(requests=[Hello], notifications=[Progress, Step], results=WorkerResult)
CLIENT = Dialect()
