"""Why a model can't be loaded, in words that name the file, the shard or the key at fault.

mlx-lm answers each kind of damage with another exception, a `KeyError: 'model_type'` or a `ZeroDivisionError` among
them. What can be seen beforehand is checked here; `explained` puts the rest into words. All of it is fatal: the same
files give the same fault on each restart.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ModelUnusable

FETCH_AGAIN = "fetch the model's files again"
FIX_CONFIG = "take config.json from the model's source, or configure a model that this mlx-lm supports"
LFS_POINTER = b"version https://git-lfs"
LARGEST_HEADER = 100 << 20
"""Bytes; the safetensors format's own limit."""
_skim = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Reads an object without making its values: tokenizer.json has megabytes of them, a tenth of a second's worth."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tiktoken.model", "vocab.json")


def check_folder(folder: Path) -> None:
    """Look at a model's files before mlx does.

    Raises:
        ModelUnusable: Something is missing or damaged.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelUnusable(f"{folder / 'config.json'} has no model_type", remedy=FIX_CONFIG)
    if config.get("model_file") is not None:
        raise ModelUnusable(
            f"{folder / 'config.json'} asks to run the model's own code ({config['model_file']!r}), which is refused",
            remedy="configure a model whose architecture mlx-lm knows",
        )
    _check_weights(folder)
    _check_tokenizer(folder)


def read_json(path: Path, decode: Callable[[bytes], Any] = json.loads) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Args:
        path: Of the file.
        decode: Reads it.

    Raises:
        ModelUnusable: It is missing, unreadable, or something else.
    """
    try:
        value = decode(path.read_bytes())
    except FileNotFoundError:
        raise ModelUnusable(f"{path} is missing", remedy=FETCH_AGAIN) from None
    except OSError as error:
        raise ModelUnusable(f"{path} can't be read: {error.strerror}", remedy="check its permissions") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise ModelUnusable(f"{path} is not JSON: {error}", remedy=FETCH_AGAIN) from error
    if not isinstance(value, dict):
        raise ModelUnusable(f"{path} is not a JSON object", remedy=FETCH_AGAIN)
    return value


def _check_weights(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted({str(name) for name in read_json(index).get("weight_map", {}).values()})
        for shard in shards:
            if not (folder / shard).exists():
                raise ModelUnusable(f"{folder / shard} is missing, which {index.name} names", remedy=FETCH_AGAIN)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelUnusable(
            f"{folder} has no weights (model*.safetensors)",
            remedy="convert the model with `mlx_lm.convert`, or configure one in mlx-lm's format",
        )
    for file in files:
        _check_safetensors(file)


def _check_safetensors(path: Path) -> None:
    """The header must be whole and the data as long as it says; bits inside the data are not looked at."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(max(8, len(LFS_POINTER)))
            if start.startswith(LFS_POINTER):
                raise ModelUnusable(f"{path} is a Git LFS pointer, not the weights", remedy="run `git lfs pull`")
            length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
            if not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise ModelUnusable(f"{path} is truncated or no safetensors file", remedy=FETCH_AGAIN)
            file.seek(8)
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except OSError as error:
        raise ModelUnusable(f"{path} can't be read: {error.strerror}", remedy="check its permissions") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelUnusable(f"{path} has a damaged safetensors header: {error}", remedy=FETCH_AGAIN) from error
    if 8 + length + end != size:
        raise ModelUnusable(
            f"{path} is truncated: {size} bytes, its header says {8 + length + end}", remedy=FETCH_AGAIN
        )


def _check_tokenizer(folder: Path) -> None:
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise ModelUnusable(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)})", remedy=FETCH_AGAIN)
    for name, decode in (("tokenizer.json", _skim), ("tokenizer_config.json", json.loads)):
        if (folder / name).exists() and not read_json(folder / name, decode):
            raise ModelUnusable(f"{folder / name} is empty", remedy=FETCH_AGAIN)


def explained(folder: Path, error: Exception, part: str) -> ModelUnusable:
    """A fault that only mlx-lm or transformers could see.

    Args:
        folder: The model's.
        error: What was raised.
        part: What was being read: `weights` or `tokenizer`.
    """
    text = _said(error)
    if part == "tokenizer":
        return ModelUnusable(f"the tokenizer in {folder} can't be loaded: {text}", remedy=FETCH_AGAIN)
    what, remedy = _blamed(folder / "config.json", error)
    return ModelUnusable(f"{what}: {text}", remedy=remedy)


def _blamed(config: Path, error: Exception) -> tuple[str, str]:
    """What is wrong, and the remedy."""
    match error:
        case KeyError() | ZeroDivisionError() | TypeError() | AttributeError():
            return f"{config} lacks a key, or has a value of the wrong kind", FIX_CONFIG
        case ValueError() if "not supported" in str(error):
            return f"{config} can't be used", "upgrade mlx-lm, or configure a model that it supports"
        case ValueError():
            return f"the weights in {config.parent} don't fit {config.name}", FETCH_AGAIN
        case RuntimeError():
            return f"the weights in {config.parent} can't be read", FETCH_AGAIN
        case _:
            return f"{config} describes no loadable model", FIX_CONFIG


def _said(error: Exception) -> str:
    """The exception's own words, on one line and of bounded length: some list each parameter of the model."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
