"""What each end of the connections takes, for tests of the protocol."""

from __future__ import annotations

from stoker.ipc.framing import Dialect
from stoker.ipc.messages import Cancel, Generate, Hello, Load, Progress, Statistics, Step, Warm, Welcome, WorkerResult

WORKER = Dialect(requests=[Load, Warm, Generate, Statistics], notifications=[Cancel], results=Welcome)
DAEMON = Dialect(requests=[Hello], notifications=[Progress, Step], results=WorkerResult)
CLIENT = Dialect()
