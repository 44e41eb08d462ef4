"""What `stoker bench` looks at before, and what it says after."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from stoker.bench.children import BenchmarkError
from stoker.bench.measuring import Measured, Plan
from stoker.bench.progress import Say
from stoker.daemon.checkup import engine
from stoker.daemon.cli import measure
from stoker.daemon.cli.measure import carried, look, picture
from stoker.daemon.cli.outcome import Failure
from stoker.daemon.settings import Settings
from tests.fakes.bench_trials import ROUND, answer
from tests.fakes.command_line import Run, Serve, stoker_process
from tests.fakes.fake_scenario import COMMAND
from tests.fakes.fake_steward import FakeSteward

GIB = 1 << 30
SEEN = engine.Seen(model_bytes=4 * GIB, kv_bytes_per_token=1 << 17, context_tokens=8192)
PLAN = Plan((500, 2000), 2)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a look at the model finds, to be changed by a test; 8 GiB are free."""
    found: dict[str, object] = {}

    def looked(_settings: Settings) -> engine.Seen:
        return msgspec.structs.replace(SEEN, **found)

    monkeypatch.setattr(engine, "look", looked)
    monkeypatch.setattr(measure, "machine_memory", lambda: (16 * GIB, 8 * GIB))
    return found


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch, seen: dict[str, object]) -> list[Measured]:
    """What is measured; an empty one can't be."""
    results = [Measured((ROUND,))]

    def measured(_home: Path, _settings: Mapping[str, str], _plan: Plan, _say: Say) -> Measured:
        if not results:
            raise BenchmarkError("the daemon is not ready but failed: it would not")
        return results[0]

    monkeypatch.setattr(measure, "measure", measured)
    monkeypatch.setattr("stoker.bench.machine.LOOK", 0.01)
    return results


# -- before ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"engine_problem": "no mlx"}, "MLX can't be imported: no mlx; install Stoker again"),
        ({"model_problem": "it is damaged", "remedy": "fetch it again"}, "it is damaged; fetch it again"),
        ({"absent": True}, "`stoker run --model a/b` fetches it"),
        (
            {"context_tokens": 2048},
            "2,000 tokens don't fit into the model's context of 2,048; give --tokens up to 1800",
        ),
        ({"context_tokens": 256}, "too short to measure; name another with --model"),
        ({"model_bytes": 9 * GIB}, "needs about 10.3 GiB of memory, and 8.0 GiB are free; end other programs"),
    ],
)
def test_what_can_t_be_measured_is_refused(seen: dict[str, object], found: dict[str, object], words: str) -> None:
    """Before anything is started, with the cause and the remedy."""
    seen |= found
    with pytest.raises(Failure) as refusal:
        look(Settings(model="a/b"), PLAN, beside=False)

    assert words in str(refusal.value)
    assert refusal.value.exit_code == 2


def test_a_second_copy_must_fit_beside_the_service(seen: dict[str, object]) -> None:
    """Where the user's own service has the memory, the remedy is to stop it."""
    seen["model_bytes"] = 9 * GIB
    with pytest.raises(
        Failure, match=r"a second copy of the model needs .* end the running service with `stoker stop`"
    ):
        look(Settings(model="a/b"), PLAN, beside=True)


def test_a_look_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that can't even look is no traceback."""
    monkeypatch.setattr(engine, "COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(Failure, match=r"can't be looked at: .*; `stoker doctor` says more"):
        look(Settings(), PLAN, beside=False)


def test_what_fits_is_measured(seen: dict[str, object]) -> None:
    """An embedded model that is not converted yet is no obstacle; of another worker's model nothing is known."""
    assert look(Settings(model="a/b"), PLAN, beside=False) == SEEN
    seen["absent"] = True
    assert look(Settings(), PLAN, beside=False) is not None
    assert look(Settings(worker_command=("other",)), PLAN, beside=False) is None


def test_the_model_and_what_bears_upon_it_is_carried_over() -> None:
    """The daemon that is measured gets these settings of the user's, and none of the others."""
    settings = Settings(model="a/b", context_tokens=4096, worker_command=("x", "y"), port=80, max_waiting=1)

    assert carried(settings) == {
        "STOKER_MODEL": "a/b",
        "STOKER_CONTEXT_TOKENS": "4096",
        "STOKER_CHUNK_SECONDS": "0.5",
        "STOKER_LOAD_STALL_TIMEOUT_SEC": "120.0",
        "STOKER_WORKER_COMMAND": "x,y",
    }


def test_a_look_at_a_picture_s_place_leaves_nothing(tmp_path: Path) -> None:
    """That a file could be written is found out without leaving one, or changing one that is there."""
    there = tmp_path / "there.png"
    there.write_bytes(b"before")

    assert picture(str(tmp_path / "new.png")) == tmp_path / "new.png"
    assert picture(str(there)) == there
    assert [path.name for path in tmp_path.glob("*.png")] == ["there.png"]
    assert there.read_bytes() == b"before"


# -- after ----------------------------------------------------------------------------------------------------


def test_tables_are_shown(stoker: Run, rounds: list[Measured], tmp_path: Path) -> None:
    """Figures on stdout, progress on stderr, the picture where it was wanted; exit 0."""
    outcome = stoker("bench", "--plot", tmp_path / "a.png")

    assert outcome.code == 0, outcome.err
    assert "Time to first token" in outcome.out
    assert "ok: 7 of 7 checks hold" in outcome.out
    assert "looking at the machine" in outcome.err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_one_line(stoker: Run, rounds: list[Measured]) -> None:
    """For programs: the command, the machine, and both tables' figures."""
    outcome = stoker("bench", "--json", "--tokens", "2000", "--repeats", "1")
    (line,) = outcome.out.splitlines()
    data = json.loads(line)

    assert data["command"] == "stoker bench --tokens 2000 --repeats 1"
    assert data["sections"]["first_token"]["results"][0]["cold"]["median"] == 14
    assert data["sections"]["speed"]["generation"]["unit"] == "tokens/s"
    assert data["facts"]["model"] == "SmolLM2-135M-Instruct"


def test_a_broken_promise_is_exit_code_1(stoker: Run, rounds: list[Measured]) -> None:
    """Another text than the cold one is told, and is no success."""
    other = replace(ROUND, trial=replace(ROUND.trial, again=answer(0.28, 2000, "Lyon")))
    rounds[0] = Measured((other,))
    outcome = stoker("bench")

    assert outcome.code == 1
    assert "WRONG: 2000 tokens: warm text is the cold text" in outcome.out


def test_what_could_not_be_measured_is_exit_code_2(stoker: Run, rounds: list[Measured]) -> None:
    """One line with the cause, and where to look for the remedy."""
    rounds.clear()
    outcome = stoker("bench")

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1] == (
        "stoker: not measured: the daemon is not ready but failed: it would not; `stoker doctor` looks for causes"
    )


def test_a_running_service_is_noted(stoker: Run, rounds: list[Measured], serve: Serve) -> None:
    """It shares the machine with what is measured: said on top, with the way to cleaner figures."""
    assert "your own service" not in stoker("bench").out

    serve(FakeSteward())
    assert "your own service runs beside it" in stoker("bench").out.split("Time to first token")[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_an_interrupted_run(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Ctrl-C, TERM and a closed terminal end its daemon and its worker, and its folder is gone; exit 130."""
    monkeypatch.setenv("STOKER_WORKER_COMMAND", ",".join(COMMAND))
    monkeypatch.setenv("FAKE_WORKER", '{"load": {"seconds": 3600, "steps": 36000}}')
    with stoker_process("bench") as process:
        assert process.stderr is not None
        while "starting a daemon" not in process.stderr.readline():
            pass
        started = family(process.pid)
        home = Path(started[0].environ()["STOKER_RUNTIME_DIR"]).parent
        process.send_signal(number)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not any(one.is_running() for one in started)
    assert not home.exists()


def family(pid: int) -> list[psutil.Process]:
    """Its daemon and the daemon's worker, once both are there."""
    while len(children := psutil.Process(pid).children(recursive=True)) < 2:
        assert psutil.pid_exists(pid)
        time.sleep(0.01)  # another process's children can only be polled
    return list(children)
