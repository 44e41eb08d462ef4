"""A model's head, narrowed to the last position.

mlx-lm's models compute logits for every position they are given; of a prompt only the last position's are looked at.
On two cores a fifth of the forward of 34 tokens was for logits that nobody reads, and mlx-lm's own way around it, the
last token in a forward of its own, costs as much. Decoding gives a model one position at a time and sees no
difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlx import nn

HEAD = "lm_head"
"""What mlx-lm's architectures call the layer that makes logits; without one, the token embedding does, transposed."""


def narrow(model: Any, embeddings: Iterable[Any]) -> None:
    """Make a model compute logits for the last position only, where its head is found; elsewhere nothing changes.

    Whether it worked, the shape of its logits tells: (batch, 1, vocabulary) for any number of positions.

    Args:
        model: An mlx-lm model. It is changed.
        embeddings: Its token embeddings, which serve as the head where there is no other.
    """
    heads = [module[HEAD] for module in model.modules() if isinstance(module.get(HEAD), nn.Module)]
    for module in heads:
        _narrowed(module, "__call__")
    if not heads:
        for module in embeddings:
            _narrowed(module, "as_linear")


def _narrowed(module: Any, method: str) -> None:
    """By a class of its own: Python looks `__call__` up in the class, and the tree of weights stays as it is."""
    kind = type(module)
    compute = getattr(kind, method)

    def last_only(self: Any, hidden: Any) -> Any:
        return compute(self, hidden[..., -1:, :])

    module.__class__ = type(kind.__name__, (kind,), {method: last_only})
