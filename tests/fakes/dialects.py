"""What each end of the connections takes, for tests of the protocol."""

from __future__ import annotations

from stoker.ipc.framing import Dialect
from stoker.ipc.messages import Cancel, Hello, Progress, Step, WarmedLater, Welcome, WorkerResult
from stoker.worker.engine import JOBS

WORKER = Dialect(requests=JOBS, notifications=[Cancel], results=Welcome)
DAEMON = Dialect(requests=[Hello], notifications=[Progress, Step, WarmedLater], results=WorkerResult)
CLIENT = Dialect()
