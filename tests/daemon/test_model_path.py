from __future__ import annotations

import os
from pathlib import Path

import pytest

from stoker.daemon.model_path import PROMPT_FILE_LIMIT, ModelPathError, resolve_model, warn_of_prompt_file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return path


@pytest.mark.parametrize("name", ["embedded", "mlx-community/Llama-3.2-3B-Instruct-4bit"])
def test_names_are_left_as_they_are(tmp_path: Path, name: str) -> None:
    """The embedded model and hub ids are no paths."""
    assert resolve_model(name, tmp_path) == name


@pytest.mark.parametrize("form", ["{path}", "./tiny", "tiny", "../{parent}/tiny", "tiny/"])
def test_a_directory_becomes_absolute(model: Path, form: str) -> None:
    """The worker gets a path that means the same from every working directory."""
    given = form.format(path=model, parent=model.parent.name)

    assert resolve_model(given, model.parent) == str(model)


def test_a_link_keeps_its_name(model: Path) -> None:
    """The model's id is the last part of the configured path, not of what it points to."""
    link = model.with_name("current")
    link.symlink_to(model)

    assert resolve_model(str(link), model.parent) == str(link)


@pytest.mark.parametrize(
    "given", ["/nowhere/model", "./nope", "~nobody-of-that-name/m", "embeded", "a/b/c", "x" * 5000]
)
def test_what_is_no_model_is_refused_with_the_remedy(tmp_path: Path, given: str) -> None:
    """The message says what may be given."""
    with pytest.raises(ModelPathError, match=r"config\.json and"):
        resolve_model(given, tmp_path)


def test_a_directory_without_config_is_refused(tmp_path: Path) -> None:
    """An existing directory that is no model, and a file, are named as such."""
    with pytest.raises(ModelPathError, match=r"has no config\.json"):
        resolve_model(".", tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ModelPathError, match="not a directory"):
        resolve_model("model.gguf", tmp_path)


def test_a_good_prompt_file_is_not_warned_of(tmp_path: Path) -> None:
    """UTF-8 text up to the limit is fine."""
    path = tmp_path / "p.md"
    path.write_bytes(b"x" * PROMPT_FILE_LIMIT)

    assert list(warn_of_prompt_file(path)) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b" \n", "is empty"), (b"\xff", "is not UTF-8"), (b"x" * (PROMPT_FILE_LIMIT + 1), "are allowed")],
)
def test_a_bad_prompt_file_is_warned_of(tmp_path: Path, content: bytes, problem: str) -> None:
    """The warning says what is wrong, and that the built-in prompt is used."""
    path = tmp_path / "p.md"
    path.write_bytes(content)
    (warning,) = warn_of_prompt_file(path)

    assert problem in warning
    assert "built-in" in warning


def test_a_pipe_is_no_prompt_file_and_is_not_opened(tmp_path: Path) -> None:
    """What would block when it is read is recognised without reading it."""
    os.mkfifo(tmp_path / "pipe")

    assert "not a regular file" in next(warn_of_prompt_file(tmp_path / "pipe"))
