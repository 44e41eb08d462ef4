"""What a worker gets to know of its surroundings."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker.daemon import environment
from stoker.daemon.environment import DAEMON_ONLY, find_openblas, worker_environment

BLAS = Path("/usr/lib/libopenblas.so.0")


def test_daemon_environment_is_handed_on() -> None:
    """The worker gets what the daemon has, and its generation."""
    environ = worker_environment({"HOME": "/home/me", "HF_HOME": "/models"}, 3, None)

    assert (environ["HOME"], environ["HF_HOME"], environ["STOKER_GENERATION"]) == ("/home/me", "/models", "3")
    assert "LD_PRELOAD" not in environ


def test_service_manager_is_the_daemons_alone() -> None:
    """What would let a worker speak to systemd in the daemon's name is taken out."""
    base = dict.fromkeys(DAEMON_ONLY, "x") | {"PATH": "/bin"}

    assert not set(DAEMON_ONLY) & worker_environment(base, 1, None).keys()


def test_base_is_not_changed() -> None:
    """The daemon's own environment stays as it is."""
    base = {"NOTIFY_SOCKET": "/run/notify", "LD_PRELOAD": "/lib/a.so"}
    before = dict(base)

    worker_environment(base, 1, BLAS)

    assert base == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{BLAS}"),
        ("", f"{BLAS}"),
        ("/lib/a.so", f"{BLAS} /lib/a.so"),
        ("/lib/a.so:/lib/b.so", f"{BLAS} /lib/a.so /lib/b.so"),
        (f"{BLAS}", f"{BLAS}"),
        (f"/lib/a.so:{BLAS}", f"/lib/a.so:{BLAS}"),
        (f"{BLAS}.3", f"{BLAS} {BLAS}.3"),
    ],
)
def test_openblas_is_preloaded_once(before: str | None, after: str) -> None:
    """OpenBLAS goes before what is preloaded already, and is not added where it is there under that very name."""
    base = {} if before is None else {"LD_PRELOAD": before}

    assert worker_environment(base, 1, BLAS)["LD_PRELOAD"] == after


def test_without_openblas_the_preload_stays() -> None:
    """Where no OpenBLAS is found, what the daemon preloads is handed on as it is."""
    assert worker_environment({"LD_PRELOAD": "/lib/a.so"}, 1, None)["LD_PRELOAD"] == "/lib/a.so"


def test_tokenizers_may_be_configured() -> None:
    """Tokenizer threads are off unless the user said otherwise."""
    assert worker_environment({}, 1, None)["TOKENIZERS_PARALLELISM"] == "false"
    assert worker_environment({"TOKENIZERS_PARALLELISM": "true"}, 1, None)["TOKENIZERS_PARALLELISM"] == "true"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A Linux machine on which libraries can be installed."""
    folders = ("{machine}-linux-gnu", "lib64")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    monkeypatch.setattr(environment, "OPENBLAS_FOLDERS", tuple(str(tmp_path / name) for name in folders))

    def put(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    return put


def test_openblas_is_found_for_this_machine(install: Callable[[str], Path]) -> None:
    """The library is looked for in this machine's own folder first."""
    install("lib64/libopenblas.so.0")
    mine = install("riscv64-linux-gnu/libopenblas.so.0")

    assert find_openblas() == mine


def test_openblas_has_several_names(install: Callable[[str], Path]) -> None:
    """Distributions name it differently; each name will do."""
    assert find_openblas() is None
    only = install("lib64/libopenblasp.so.0")
    assert find_openblas() == only


def test_macos_needs_none(install: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS nothing is preloaded, whatever lies around."""
    install("lib64/libopenblas.so.0")
    monkeypatch.setattr(sys, "platform", "darwin")

    assert find_openblas() is None
