"""The systemd user unit of the daemon: systemd.unit(5), systemd.service(5), for systemd 252 and later."""

from __future__ import annotations

import os
from collections.abc import Iterable

from .job import Job

NAME = "stoker.service"

START_TIMEOUT = 300
"""Seconds to ready, or to the next word from us: the daemon extends it while it loads and warms."""
WATCHDOG = 30
"""Seconds between two signs of life, once ready; the daemon gives one twice in that time."""
STOP_MARGIN = 15.0
"""Seconds between the daemon's own stop and systemd's KILL."""


def unit(job: Job) -> str:
    """The unit's text.

    * `Type=notify`, not `notify-reload`: 252 knows the latter not, and falls back to `simple` with a warning only.
    * `RestartPreventExitStatus=78`: a configuration error is not mended by a restart.
    * `OOMPolicy=continue`: when the worker runs out of memory, the daemon is there to replace it; by default systemd
      would stop them both.
    * `KillMode=mixed`: the daemon ends its worker itself, and systemd kills what is left of the group.
    """
    return f"""\
# Written by `stoker install`, which writes it anew; own settings belong into `systemctl --user edit {NAME}`.
[Unit]
Description=Stoker keeps a local language model running and warm
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={_command(job.command)}
ExecReload=/bin/kill -HUP $MAINPID
{_environment(job)}WorkingDirectory=~
Restart=on-failure
RestartSec=2
RestartPreventExitStatus={os.EX_CONFIG}
TimeoutStartSec={START_TIMEOUT}
TimeoutStopSec={int(job.stop_seconds + STOP_MARGIN)}
WatchdogSec={WATCHDOG}
KillMode=mixed
OOMPolicy=continue
UMask=0077
LimitNOFILE=8192

[Install]
WantedBy=default.target
"""


def _environment(job: Job) -> str:
    return "".join(f"Environment={_quoted(f'{name}={value}')}\n" for name, value in sorted(job.environment.items()))


def _command(words: Iterable[str]) -> str:
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def _quoted(word: str) -> str:
    """A word that systemd reads as it is: C-like escapes inside quotes, and `%` doubled (systemd.syntax(7))."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
    return f'"{escaped}"'
