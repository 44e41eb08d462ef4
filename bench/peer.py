"""The server that people would run otherwise: mlx-lm's own, on the same model, with the same BLAS."""

from __future__ import annotations

import http.client
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.blas import engine_environment
from stoker.bench.children import BenchmarkError, child, deadline, demand_alive

UP = 120.0
"""Seconds for it to answer; it imports mlx-lm first."""

NAME = "mlx_lm.server"
MODEL = "default_model"
"""Its word for the model that it was started with."""

# It prints the time when it has what a worker needs to say `loaded`; this clock is the same in all processes.
_FLOOR = """
import sys, time
import mlx_lm
model, tokenizer = mlx_lm.load(sys.argv[1])
print(time.perf_counter())
"""


@contextmanager
def running(model: Path, log: Path) -> Iterator[str]:
    """Its URL while the block runs; it answers, but may load the model only at the first request."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port)]
    options = ["--host", "127.0.0.1", "--temp", "0", "--log-level", "WARNING"]
    with child([*command, *options], engine_environment(), log) as process:
        for _ in deadline(UP, f"an answer of {NAME}"):
            demand_alive(process, log)
            if _answers(url):
                break
        yield url


def load_floor(model: Path, log: Path) -> float:
    """Seconds for a bare Python to start, import mlx-lm and load the model: what no supervisor can be faster than."""
    start = time.perf_counter()
    with child([sys.executable, "-c", _FLOOR, str(model)], engine_environment(), log) as process:
        code = process.wait(UP)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if code != 0:
        raise BenchmarkError(f"loading {model} ended with {code}:\n  " + "\n  ".join(lines[-8:]))
    return float(lines[-1]) - start


def _answers(url: str) -> bool:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=UP)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False  # not yet
    finally:
        connection.close()


def _free_port() -> int:
    """Free now; another process could take it before the server does, which then ends, and we say so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
