"""What a stored KV prefix is bound to: everything that could give the same tokens another KV, or meaning.

An identity is a set of named parts. Two identities match if all parts are equal; where they aren't, the names say
what has changed. Text files are read whole. Weights are too big for that (a second for each GB), so of them the
digest covers names, sizes, times, the whole safetensors headers, and blocks sampled evenly over the files:
`SAMPLED` bytes in all, which takes some 10 ms. A new training run, another quantization, or a merge of an adapter
changes nearly every block and can't be missed, even where a copy preserved size and time. What would be missed is a
change of a few bytes between two samples by something that also sets the time back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

FORMAT = 1
"""Version of what our files mean: their layout, and how KV is laid out in them."""

SAMPLED = 4 << 20
"""Bytes of weights that are read, over all files."""
BLOCK = 4096
"""Bytes of a sample: the least that a disk reads."""
FEWEST_BLOCKS = 16
"""Samples of even the smallest of many files."""
LARGEST_HEADER = 100 << 20
"""Bytes; what the safetensors format allows."""

WEIGHTS = "model*.safetensors"
"""The files that mlx-lm loads weights from."""
TOKENIZER_FILES = ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer.model")
ENGINES = ("mlx", "mlx-lm")
READABLE = frozenset({"engine", "device", "kv layout", "format"})
"""Parts whose values are words, not digests, so that a change can be shown."""

ANOTHER_MODEL = "another model"


@dataclass(frozen=True, slots=True)
class Identity:
    """What entries of this worker are bound to.

    Attributes:
        model: The model's name. Not bound; it tells a changed model from another one.
        parts: Values by name; all of them are bound.
    """

    model: str
    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits over all parts."""
        return hashlib.sha256(json.dumps(dict(self.parts), sort_keys=True).encode()).hexdigest()

    def difference(self, model: str, parts: Mapping[str, str]) -> str | None:
        """Why an entry with that identity can't be used here, in words; None if it can.

        Args:
            model: The entry's model.
            parts: The entry's parts.
        """
        names = [name for name in {**self.parts, **parts} if self.parts.get(name) != parts.get(name)]
        if not names:
            return None
        if model != self.model:
            return ANOTHER_MODEL
        return ", ".join(_changed(name, parts.get(name), self.parts.get(name)) for name in names)


def identify(
    folder: Path,
    *,
    model: str,
    layout: str,
    device: str,
    adapter: Path | None = None,
    extra: Mapping[str, str] | None = None,
) -> Identity:
    """The identity of a model as it lies on the disk and runs here. Takes about 10 ms, most of it for the weights.

    Args:
        folder: The model's directory, in mlx-lm's format.
        model: Its name, for reasons only.
        layout: Class, shape and dtype of each layer's KV cache, as words.
        device: What it runs on: `cpu`, `gpu`.
        adapter: Directory of an adapter, if one is applied.
        extra: More parts, such as a template given in the configuration.

    Raises:
        OSError: Files of the model can't be read (any more).
    """
    parts = {
        "weights": weights_digest(sorted(folder.glob(WEIGHTS))),
        **_text_parts(folder),
        "adapter": _adapter(adapter),
        "kv layout": layout,
        "engine": ", ".join(f"{name} {_version(name)}" for name in ENGINES),
        "device": device,
        "format": str(FORMAT),
        **(extra or {}),
    }
    return Identity(model, MappingProxyType(parts))


def weights_digest(files: Iterable[Path], sampled: int = SAMPLED) -> str:
    """Digest over names, sizes, times, headers and samples of safetensors files.

    Args:
        files: In an order that is always the same.
        sampled: Bytes to read beside the headers, over all files (small ones are read whole).
    """
    sizes = {path: path.stat().st_size for path in files}
    total = max(1, sum(sizes.values()))
    digest = hashlib.sha256()
    for path, size in sizes.items():
        share = max(FEWEST_BLOCKS * BLOCK, sampled * size // total)
        for piece in _weight_pieces(path, share):
            digest.update(piece)
    return digest.hexdigest()


def _weight_pieces(path: Path, share: int) -> Iterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        stat = os.fstat(descriptor)
        yield f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode()
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        yield os.pread(descriptor, min(8 + length, LARGEST_HEADER), 0)
        for offset, count in _samples(stat.st_size, share):
            yield os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)


def _samples(size: int, share: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths: the whole file if it is small, else blocks evenly from the first to the last."""
    if size <= share:
        yield 0, size
        return
    count = max(2, share // BLOCK)
    for index in range(count):
        yield index * (size - BLOCK) // (count - 1), BLOCK


def _text_parts(folder: Path) -> dict[str, str]:
    """Parts made of text files, told apart so that a change can be named."""
    names = {path.name for pattern in ("*.json", "*.jinja") for path in folder.glob(pattern) if path.name[0] != "."}
    names |= {name for name in TOKENIZER_FILES if (folder / name).exists()}
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    quantization = [config.pop(key, None) for key in ("quantization", "quantization_config")]
    inline = tokenizer.pop("chat_template", None)
    templates = sorted(name for name in names if name.startswith("chat_template"))
    words = sorted(
        name
        for name in names
        if name.startswith("tokenizer") or name in TOKENIZER_FILES
        if name != "tokenizer_config.json"
    )
    others = sorted(names - {*templates, *words, "config.json", "tokenizer_config.json"})
    return {
        "quantization": _digest(quantization),
        "config": _digest(config),
        "tokenizer": _digest(tokenizer, _contents(folder, words)),
        "template": _digest(inline, _contents(folder, templates), _more_templates(folder)),
        "other files": _digest(_contents(folder, others)),
    }


def _more_templates(folder: Path) -> list[list[str]]:
    """Templates for special uses, which newer models keep in a directory of their own."""
    nested = folder / "additional_chat_templates"
    return _contents(nested, sorted(path.name for path in nested.glob("*.jinja")))


def _contents(folder: Path, names: Iterable[str]) -> list[list[str]]:
    return [[name, hashlib.sha256((folder / name).read_bytes()).hexdigest()] for name in names]


def _json(path: Path) -> dict[str, Any]:
    """The file's object; what isn't one counts as it is written."""
    with suppress(FileNotFoundError):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return value if isinstance(value, dict) else {"": value}
    return {}


def _adapter(folder: Path | None) -> str:
    if folder is None:
        return "none"
    weights = weights_digest(sorted(folder.glob("*.safetensors")))
    return _digest(weights, _contents(folder, sorted(path.name for path in folder.glob("*.json"))))


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _changed(name: str, then: str | None, now: str | None) -> str:
    if name not in READABLE or then is None or now is None:
        return f"{name} changed"
    return f"{name} changed ({then} then, {now} now)"
