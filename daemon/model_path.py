"""What the configuration names: a model, a prompt file. Mistakes are told before anything is started."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

EMBEDDED = "embedded"

PROMPT_FILE_LIMIT = 1 << 20
"""Bytes of `WARMUP_SYSTEM_FILE`; the worker falls back to the built-in prompt above it."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_REMEDY = (
    "give a directory with config.json and *.safetensors in mlx-lm's format, "
    f"a hub id such as mlx-community/NAME, or `{EMBEDDED}`"
)


class ModelPathError(Exception):
    """The model can't be what it should be; the message says what was expected."""


def resolve_model(model: str, base: Path) -> str:
    """The model as the worker is to be given it: `embedded`, an absolute directory, or a hub id.

    Args:
        model: As configured.
        base: What a relative path is relative to.

    Raises:
        ModelPathError: If it is none of them.
    """
    if model == EMBEDDED:
        return model
    try:
        path = base / Path(model).expanduser()
        exists = path.exists()
    except (RuntimeError, OSError, ValueError) as error:  # an unknown user's home; a name too long, or with a zero
        raise ModelPathError(f"{error}; {_REMEDY}") from error
    if exists or model.startswith(("/", "./", "../", "~")) or model in {".", ".."}:
        return str(_directory(path))
    if not _HUB_ID.fullmatch(model):
        raise ModelPathError(f"it is neither an existing directory nor a hub id; {_REMEDY}")
    return model


def _directory(path: Path) -> Path:
    if not path.exists():
        raise ModelPathError(f"there is no directory {path}; {_REMEDY}")
    if not path.is_dir():
        raise ModelPathError(f"{path} is not a directory; {_REMEDY}")
    if not (path / "config.json").is_file():
        raise ModelPathError(f"{path} has no config.json; {_REMEDY}")
    return Path(os.path.abspath(path))  # noqa: PTH100 - links stay: the last part is the model's id


def warn_of_prompt_file(path: Path) -> Iterator[str]:
    """Why the worker will not use this prompt file, if it will not."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # asked before opening: a pipe would block
            problem = "is not a regular file"
        elif status.st_size > PROMPT_FILE_LIMIT:
            problem = f"has {status.st_size} bytes, and {PROMPT_FILE_LIMIT} are allowed"
        elif not path.read_text(encoding="utf-8").strip():
            problem = "is empty"
        else:
            return
    except OSError as error:
        problem = f"can't be read ({error.strerror})"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    yield f"the warmup prompt {path} {problem}; the built-in prompt is used"
