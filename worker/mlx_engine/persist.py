"""A KV cache as one safetensors file, and back, bit for bit.

Written are the tokens that a layer holds, not the room that it has for more. What is read is fitted into a template:
the same number of layers, each of the same class, dtype and shape. That is no formality: mlx takes too few layers, or
another dtype, and computes wrong tokens with them in silence (mlx-lm 0.32.2).
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, RotatingKVCache

LAYERS = "layers"
"""The metadata's only field: a description of each layer, as JSON."""
HEADER_BYTES = 256
"""Most bytes of a safetensors header for one array: name, dtype, shape, offsets."""

Arrays: TypeAlias = dict[str, Any]
Facts: TypeAlias = dict[str, Any]
"""A layer's class, and its numbers."""


class PersistError(Exception):
    """The KV can't be written or read; the message says why."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a class of layers is taken apart and put together.

    Attributes:
        fixed: Attributes that are numbers, the same for every sequence.
        varying: Attributes that are numbers, and the sequence's.
        take: Its arrays, by names of ours; only what is in use of them.
        give: A new layer from arrays, beside its numbers, like the template.
    """

    fixed: tuple[str, ...]
    varying: tuple[str, ...]
    take: Callable[[Any], Arrays]
    give: Callable[[Arrays, Any], Any]


def persistable(kv: Sequence[Any]) -> str | None:
    """Why this KV can't be kept on disk; None if it can."""
    for layer in kv:
        if reason := persistable(getattr(layer, "caches", ())):
            return reason
        if type(layer) is not CacheList and type(layer) not in _KINDS:
            return f"layers of the class {type(layer).__name__} can't be kept on disk"
        if type(layer) is ArraysCache and not (layer.left_padding is None and layer.lengths is None):
            return "a batch can't be kept on disk"
    return None


def file_size(kv: Sequence[Any]) -> int:
    """Bytes that `save` writes, at most."""
    arrays, facts = _taken(kv)
    size: int = sum(array.nbytes + HEADER_BYTES for array in arrays.values())
    return size + 2 * len(json.dumps(facts)) + HEADER_BYTES


def save(kv: Sequence[Any], path: Path) -> None:
    """Write evaluated KV; on any thread, which evaluates what is cut out of it.

    Args:
        kv: It is only read, and no other thread may be writing to it.
        path: Ends in `.safetensors`; it is overwritten.

    Raises:
        PersistError: A kind of layer that can't be written.
        RuntimeError: From mlx, for a full disk as for anything else.
    """
    if reason := persistable(kv):
        raise PersistError(reason)
    arrays, facts = _taken(kv)
    mx.save_safetensors(str(path), arrays, {LAYERS: json.dumps(facts)})


def load(path: str | Path, template: Sequence[Any], tokens: int) -> list[Any]:
    """Read KV; its arrays are evaluated when this returns, and belong to this thread's use and any other's.

    Args:
        path: A whole file: mlx notices one that was cut off, but not zeros or flipped bits.
        template: Layers of the same model; where they hold something, its shapes and dtypes must be the same.
        tokens: How many the KV must hold.

    Raises:
        PersistError: It can't be read, or isn't for this model, or holds another number of tokens.
    """
    arrays: Any
    metadata: Any
    try:
        arrays, metadata = mx.load(str(path), format="safetensors", return_metadata=True)
        facts = json.loads(metadata[LAYERS])
        mx.eval(arrays)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise PersistError(f"the file is no KV of ours: {error}") from error
    if not isinstance(facts, list) or len(facts) != len(template):
        raise PersistError(f"the file has not the {len(template)} layers of this model")
    kv = [_given(str(index), arrays, *pair) for index, pair in enumerate(zip(facts, template, strict=True))]
    if arrays:
        raise PersistError(f"the file has {len(arrays)} arrays too many")
    for index, (layer, like) in enumerate(zip(_leaves(kv), _leaves(template), strict=True)):
        if reason := _misfit(layer, like, tokens):
            raise PersistError(f"layer {index} {reason}")
    return kv


def layout(kv: Sequence[Any]) -> str:
    """Class, dtypes and shapes of each layer of a KV that holds some tokens, but not how many; as words.

    Alike layers in a row are told once: `30 x KVCache(keys float32 1x3x*x64, values float32 1x3x*x64)`.
    """
    groups = itertools.groupby(f"{type(leaf).__name__}({_shape(leaf)})" for leaf in _leaves(kv))
    return ", ".join(f"{len(list(group))} x {words}" for words, group in groups)


# -- classes -----------------------------------------------------------------------------------------------


def _taken(kv: Sequence[Any], prefix: str = "") -> tuple[Arrays, list[Facts]]:
    arrays: Arrays = {}
    facts: list[Facts] = []
    for index, layer in enumerate(kv):
        name = f"{prefix}{index}"
        fact: Facts = {"class": type(layer).__name__}
        if type(layer) is CacheList:
            inner, fact["caches"] = _taken(layer.caches, f"{name}.")
            arrays |= inner
        else:
            kind = _KINDS[type(layer)]
            arrays |= {f"{name}.{key}": array for key, array in kind.take(layer).items()}
            fact |= {number: getattr(layer, number) for number in (*kind.fixed, *kind.varying)}
        facts.append(fact)
    return arrays, facts


def _given(name: str, arrays: Arrays, fact: Any, template: Any) -> Any:
    """One layer; its arrays are taken out of `arrays`."""
    expected = type(template).__name__
    if not isinstance(fact, dict) or fact.get("class") != expected:
        raise PersistError(f"layer {name} is not of the class {expected}")
    try:
        if type(template) is CacheList:
            inner = zip(fact["caches"], template.caches, strict=True)
            return CacheList(*[_given(f"{name}.{index}", arrays, *pair) for index, pair in enumerate(inner)])
        kind, prefix = _KINDS[type(template)], f"{name}."
        own = {key.removeprefix(prefix): arrays.pop(key) for key in list(arrays) if key.startswith(prefix)}
        layer = kind.give(own, template)
        for number in (*kind.fixed, *kind.varying):
            setattr(layer, number, int(fact[number]))
    except (KeyError, TypeError, ValueError) as error:
        raise PersistError(f"layer {name} is not whole: {error!r}") from error
    return layer


def _leaves(kv: Sequence[Any]) -> Iterator[Any]:
    for layer in kv:
        if type(layer) is CacheList:
            yield from _leaves(layer.caches)
        else:
            yield layer


def _misfit(layer: Any, template: Any, tokens: int) -> str | None:
    """Why a layer doesn't go with a template; they are of the same class."""
    for number in _KINDS[type(layer)].fixed:
        if getattr(layer, number) != getattr(template, number):
            return f"has {number} {getattr(layer, number)}, the model {getattr(template, number)}"
    if not template.empty() and _shape(layer) != _shape(template):
        return f"holds {_shape(layer)}, the model {_shape(template)}"
    if type(layer) is ArraysCache:
        return None
    if layer.offset != tokens:
        return f"holds {layer.offset} tokens, not {tokens}"
    lengths = {array.shape[2] if array.ndim == 4 else None for array in _KINDS[type(layer)].take(layer).values()}
    return None if _right_length(layer, lengths) else f"has arrays of the lengths {lengths} for {tokens} tokens"


def _right_length(layer: Any, lengths: set[int | None]) -> bool:
    """Whether the arrays, all of the same length, are as long as the layer's numbers say."""
    if not layer.offset:
        return not lengths
    if len(lengths) != 1 or None in lengths:
        return False
    length: int = lengths.pop() or 0
    held: int = layer.offset
    if type(layer) is RotatingKVCache:
        return min(held, int(layer.max_size)) <= length <= held and 0 <= int(layer._idx) <= length  # noqa: SLF001
    return length == held


def _shape(layer: Any) -> str:
    """Arrays of a layer; `*` is the axis that tokens are added to."""
    words = []
    for name, array in _KINDS[type(layer)].take(layer).items():
        sizes: list[Any] = list(array.shape)
        if type(layer) is not ArraysCache:
            sizes[2:3] = "*"
        words.append(f"{name} {str(array.dtype).rpartition('.')[2]} {'x'.join(map(str, sizes))}")
    return ", ".join(words)


# Slices, not copies: what is cut off is room for more tokens. A window that went round is shorter, and all in use.


def _take_kv(layer: Any) -> Arrays:
    if layer.keys is None or not layer.offset:
        return {}
    return {name: getattr(layer, name)[..., : layer.offset, :] for name in ("keys", "values")}


def _take_quantized(layer: Any) -> Arrays:
    if layer.keys is None or not layer.offset:
        return {}
    return {
        f"{name}.{part}": array[..., : layer.offset, :]
        for name in ("keys", "values")
        for part, array in zip(("data", "scales", "biases"), getattr(layer, name), strict=True)
    }


def _take_arrays(layer: Any) -> Arrays:
    return {str(index): array for index, array in enumerate(layer.cache) if array is not None}


def _give_kv(arrays: Arrays, template: Any) -> Any:
    layer = copy.copy(template)
    layer.keys, layer.values = (arrays.pop("keys"), arrays.pop("values")) if arrays else (None, None)
    return _demand_used(layer, arrays)


def _give_quantized(arrays: Arrays, template: Any) -> Any:
    layer = copy.copy(template)
    for name in ("keys", "values"):
        parts = tuple(arrays.pop(f"{name}.{part}") for part in ("data", "scales", "biases")) if arrays else None
        setattr(layer, name, parts)
    return _demand_used(layer, arrays)


def _give_arrays(arrays: Arrays, template: Any) -> Any:
    size = len(template.cache)
    layer = ArraysCache(size)
    layer.cache = [arrays.pop(str(index), None) for index in range(size)]
    return _demand_used(layer, arrays)


def _demand_used(layer: Any, arrays: Arrays) -> Any:
    if arrays:
        raise ValueError(f"unknown arrays {sorted(arrays)}")
    return layer


_KINDS: dict[type, _Kind] = {
    KVCache: _Kind((), ("offset",), _take_kv, _give_kv),
    RotatingKVCache: _Kind(("keep", "max_size"), ("offset", "_idx"), _take_kv, _give_kv),
    QuantizedKVCache: _Kind(("group_size", "bits"), ("offset",), _take_quantized, _give_quantized),
    ArraysCache: _Kind((), (), _take_arrays, _give_arrays),
}
