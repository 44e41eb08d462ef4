"""What every test stands on: no network, own directories, asyncio by default; and tiny models to share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from stoker.daemon.environment import find_openblas

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.fakes.tiny_models import Kind

# Before anything imports huggingface_hub, which reads them once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# Several processes compute at once here; a BLAS's threads spin while they wait, and take the cores from the others.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The processes of xdist, which start after this, compute with what the daemon gives its workers: the BLAS in MLX's
# wheel is nine times slower.
if "LD_PRELOAD" not in os.environ and (openblas := find_openblas()) is not None:
    os.environ["LD_PRELOAD"] = str(openblas)

# A script starts what shall run beside it with SIGINT ignored (POSIX shell, 2.11: Signals and Error Handling), and
# all processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of an example; what is slow by its own fault meets the tests' own timeout.
settings.register_profile("stoker", deadline=None)
settings.load_profile("stoker")


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """`-n auto`: three processes on two cores; they wait for processes of their own a fifth of the time."""
    cores = yield
    return cores + cores // 2


SEED_VARIABLES = ("KV_CACHE_WARMUP", "WARMUP_TIMEOUT_SEC", "WARMUP_SYSTEM_FILE")
DIRECTORIES = ("RUNTIME", "STATE", "CACHE", "LOG")


@pytest.fixture(scope="module", autouse=True)
def _nobodys_environment() -> Iterator[None]:
    """No test, and nothing that a file's tests share, has anybody's variables."""
    with pytest.MonkeyPatch.context() as own:
        for name in [*SEED_VARIABLES, *(name for name in os.environ if name.startswith("STOKER_"))]:
            own.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test has directories of its own and nobody's configuration."""
    for name in DIRECTORIES:
        monkeypatch.setenv(f"STOKER_{name}_DIR", str(tmp_path / name.lower()))
    config = tmp_path / "config.toml"
    config.touch()
    monkeypatch.setenv("STOKER_CONFIG", str(config))


@pytest.fixture
def anyio_backend() -> str:
    """Tests run on asyncio, like the product, unless they ask for trio's virtual clock."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], Path]:
    """`tiny_model(kind)`: the directory of a tiny random model, written once for each run."""
    from tests.fakes.tiny_models import write_tiny_model  # noqa: PLC0415 - most tests need no mlx

    written: dict[Kind, Path] = {}

    def path(kind: Kind) -> Path:
        if kind not in written:
            written[kind] = write_tiny_model(kind, tmp_path_factory.mktemp("models") / f"tiny-{kind}")
        return written[kind]

    return path


@pytest.fixture(scope="session")
def tiny_llama(tiny_model: Callable[[Kind], Path]) -> Path:
    """A model whose KV cache may be trimmed."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def tiny_sliding(tiny_model: Callable[[Kind], Path]) -> Path:
    """A llama with sliding-window layers: its KV serves whole prefixes only."""
    return tiny_model("sliding")


@pytest.fixture(scope="session")
def tiny_hybrid(tiny_model: Callable[[Kind], Path]) -> Path:
    """A model with recurrent layers between attention layers."""
    return tiny_model("hybrid")


@pytest.fixture(scope="session")
def scripted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says the scripts of `tests.fakes.scripted_model`: the one whose name the last message contains."""
    from tests.fakes.scripted_model import write_scripted_model  # noqa: PLC0415 - most tests need no mlx

    folder = tmp_path_factory.mktemp("models") / "scripted"
    write_scripted_model(folder)
    return folder


@pytest.fixture(scope="session")
def embedded_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with the embedded model in it, converted once for each run (550 MB)."""
    from stoker.worker.embedded import EmbeddedModelMissing, embedded_model  # noqa: PLC0415 - most tests need no mlx

    parallel = "PYTEST_XDIST_WORKER" in os.environ
    # The workers' directories lie in one that is the run's. The first converts; a lock of the product's has the
    # others wait, with a deadline.
    cache = tmp_path_factory.getbasetemp().parent / "embedded" if parallel else tmp_path_factory.mktemp("cache")
    try:
        embedded_model(cache, lambda _done, _total: None)
    except EmbeddedModelMissing as error:
        pytest.skip(f"{error}: {error.data.remedy}")
    return cache


@pytest.fixture(scope="session")
def tiny_loaded(tiny_model: Callable[[Kind], Path]) -> Callable[[Kind], tuple[Any, Any]]:
    """`tiny_loaded(kind)`: model and tokenizer, as `mlx_lm.load` returns them; shared, so don't change them."""
    import mlx_lm  # noqa: PLC0415 - most tests need no mlx

    loaded: dict[Kind, tuple[Any, Any]] = {}

    def pair(kind: Kind) -> tuple[Any, Any]:
        if kind not in loaded:
            loaded[kind] = mlx_lm.load(str(tiny_model(kind)))[:2]
        return loaded[kind]

    return pair
