"""Loading a model, and proving before anyone is served that it works."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_config, load_model, load_tokenizer

from ...ipc.messages import Load
from ..embedded import NAME as EMBEDDED_ID
from ..errors import ModelUnusable
from .faults import FETCH_AGAIN, check_folder, explained
from .head import narrow
from .kv import KvCost, evaluate, is_batchable, is_trimmable
from .sources import EMBEDDED, Report, find_model

log = logging.getLogger(__name__)

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "max_seq_len")
"""Where configurations of mlx-lm's architectures tell the length of the context."""
ENDLESS_CONTEXT = 131_072
"""Tokens, for models that name no limit (recurrent ones have none); bounds what one request may cost."""
STEP_BYTES = 128 << 20
"""Weights read between two reports of progress: well under a second from any disk."""
TEST_TOKENS = 8
"""Length of the self-test's forward; any length shows NaN weights, and that the shapes fit."""
EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embeddings", "embedding", "embed_in")
"""Names of the token embedding in mlx-lm's architectures; other embeddings count positions, for instance."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that passed its self-test.

    Attributes:
        model: mlx-lm's module.
        tokenizer: mlx-lm's tokenizer wrapper.
        name: Id that clients may use.
        context: Most tokens of prompt and answer together.
        vocabulary: Token ids below this are safe to embed; others would kill the process.
        width: Of its logits.
        narrow: It computes logits for the last position only.
        trimmable: Whether its KV can be cut to any common prefix.
        batchable: Whether its KV can be merged into a batch's.
        cost: Memory of its KV.
        folder: Where its files are.
        sample: A KV cache that holds some tokens: the kinds, shapes and dtypes of all others.
    """

    model: Any
    tokenizer: Any
    name: str
    context: int
    vocabulary: int
    width: int
    narrow: bool
    trimmable: bool
    batchable: bool
    cost: KvCost
    folder: Path
    sample: list[Any]


def load(body: Load, report: Report) -> LoadedModel:
    """Find, load and test the model.

    Args:
        body: What to load.
        report: Told of progress, at least each few seconds.

    Raises:
        ModelUnusable: It can't be loaded; the message names what is wrong with it.
        ModelUnreachable: It can't be fetched now.
    """
    report("load", 0, 1)
    folder = find_model(body.model, Path(body.cache_dir), report)
    check_folder(folder)
    if mx.default_device() == mx.Device(mx.cpu):
        # Compiling would run a C++ compiler at request time, 0.5 s for each new kernel, and gains nothing here.
        mx.disable_compile()
    with ThreadPoolExecutor(1, "tokenizer") as beside:  # half a second of another core's time
        tokenizer = beside.submit(_tokenizer, folder)
        model, config = _weights(folder, report)
        return _tested(folder, model, tokenizer, name_of(body.model), _context(config, body.context_tokens))


def name_of(model: str) -> str:
    """The id that clients may use for a model, from what is configured."""
    return EMBEDDED_ID if model == EMBEDDED else Path(model).name or model


def _weights(folder: Path, report: Report) -> tuple[Any, dict[str, Any]]:
    try:
        model, config = load_model(folder, lazy=True)
        groups = list(_groups([array for _, array in tree_flatten(model.parameters())]))
        for done, group in enumerate(groups):
            report("load", done, len(groups) + 1)
            mx.eval(group)
        report("load", len(groups), len(groups) + 1)
    except Exception as error:
        # mlx-lm raises whatever its reading of a damaged model ran into; none of it gets better by trying again.
        log.exception("loading the weights failed")
        raise explained(folder, error, "weights") from error
    return model, config


def _groups(arrays: list[Any]) -> Iterator[list[Any]]:
    """Arrays in order, in groups of about `STEP_BYTES`."""
    sizes = itertools.accumulate(array.nbytes for array in arrays)
    for _, group in itertools.groupby(zip(sizes, arrays, strict=True), key=lambda pair: pair[0] // STEP_BYTES):
        yield [array for _, array in group]


def _tokenizer(folder: Path) -> Any:
    try:
        config = load_config(folder)
        return load_tokenizer(folder, {"trust_remote_code": False}, eos_token_ids=config.get("eos_token_id"))
    except Exception as error:
        # transformers, too, raises whatever it ran into.
        log.exception("loading the tokenizer failed")
        raise explained(folder, error, "tokenizer") from error


def _context(config: dict[str, Any], limit: int | None) -> int:
    candidates = [source.get(key) for source in (config, config.get("text_config") or {}) for key in CONTEXT_KEYS]
    own = next((value for value in candidates if isinstance(value, int) and value > 0), ENDLESS_CONTEXT)
    return own if limit is None else max(1, min(own, limit))


def _tested(folder: Path, model: Any, read: Future[Any], name: str, context: int) -> LoadedModel:
    """Run the model once; what it shows, and the KV that it leaves, tell the rest."""
    kv = make_prompt_cache(model)
    narrow(model, _embeddings(model))
    try:
        logits = model(mx.array([[index % 2 for index in range(TEST_TOKENS)]]), cache=kv)
        evaluate(kv)
        finite = bool(mx.isfinite(logits).all().item())
    except Exception as error:
        # A forward fails in as many ways as there are wrong configurations; each of them is the model's fault.
        log.exception("the self-test failed")
        raise ModelUnusable(f"the model in {folder} fails its self-test: {error}", remedy=FETCH_AGAIN) from error
    if not finite:
        raise ModelUnusable(
            f"the model in {folder} answers its self-test with numbers that are not finite: weights are damaged",
            remedy=FETCH_AGAIN,
        )
    tokenizer = read.result()
    width = int(logits.shape[-1])
    vocabulary = min([width, *embedding_rows(model)])
    _check_vocabulary(folder, tokenizer, vocabulary)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        context=context,
        vocabulary=vocabulary,
        width=width,
        narrow=logits.shape[1] == 1,
        trimmable=is_trimmable(kv),
        batchable=is_batchable(kv),
        cost=KvCost.of(kv),
        folder=folder,
        sample=kv,
    )


def embedding_rows(model: Any) -> list[int]:
    """Rows of the token embeddings that the model has; ids must be below the smallest."""
    return [int(module.weight.shape[0]) for module in _embeddings(model)]


def _embeddings(model: Any) -> list[Any]:
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding) and name.rpartition(".")[2] in EMBEDDINGS
    ]


def _check_vocabulary(folder: Path, tokenizer: Any, vocabulary: int) -> None:
    """An id without an embedding row isn't refused by mlx: it reads beyond the array and kills the process."""
    token, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if largest >= vocabulary:
        raise ModelUnusable(
            f"the tokenizer in {folder} has the id {largest} ({token!r}); the model takes ids below {vocabulary}",
            remedy="take tokenizer and weights from the same model",
        )
