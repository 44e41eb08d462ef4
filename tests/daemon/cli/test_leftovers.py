"""What an uninstall deletes, and what it must not."""

from __future__ import annotations

from pathlib import Path

from stoker.daemon.cli.leftovers import remove
from stoker.daemon.settings import Settings
from stoker.worker.embedded import NAME


def settings(folder: Path) -> Settings:
    """Settings with all folders in one."""
    return Settings(
        log_dir=folder / "log", state_dir=folder / "state", runtime_dir=folder / "run", cache_dir=folder / "cache"
    )


def test_own_files_go(tmp_path: Path) -> None:
    """Logs, their rotated ones, what was learned, and sockets are deleted with their folders."""
    ours = ["log/daemon.log", "log/daemon.log.1", "log/worker.log", "state/learned/x.json", "run/control.sock.lock"]
    for name in ours:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert remove(settings(tmp_path), purge=False) == ()
    assert not any((tmp_path / name).parent.exists() for name in ours)


def test_models_stay_unless_purged(tmp_path: Path) -> None:
    """Converted models and prefixes are of use to the next install; a lock, and what was half done, go with them."""
    model = tmp_path / "cache" / NAME / "model.safetensors"
    model.parent.mkdir(parents=True)
    model.touch()
    (tmp_path / "cache" / f".{NAME}.lock").touch()
    (tmp_path / "cache" / f".{NAME}.x7.partial").mkdir()

    assert remove(settings(tmp_path), purge=False) == (tmp_path / "cache",)
    assert model.exists()
    assert remove(settings(tmp_path), purge=True) == ()
    assert not (tmp_path / "cache").exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A folder that was configured by mistake to be somebody's own loses nothing, nor what a link points to."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "letters.txt").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "keep").touch()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "learned").symlink_to(tmp_path / "elsewhere")

    assert remove(settings(tmp_path), purge=True) == (tmp_path / "log",)
    assert (tmp_path / "log" / "letters.txt").exists()
    assert (tmp_path / "elsewhere" / "keep").exists()
