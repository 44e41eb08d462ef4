"""Which names in a request mean our model."""

from __future__ import annotations

from .backend import Models
from .errors import ApiError

DEFAULT = "default"
"""Always means the daemon's model, whatever that is."""


def is_known(models: Models, name: str) -> bool:
    """Whether a request may ask for `name`."""
    return models.accept_any or name in {models.id, models.id.rpartition("/")[2], DEFAULT, *models.aliases}


def require_known(models: Models, name: str) -> None:
    """Refuse a name that is not ours.

    Raises:
        ApiError: 404, naming what there is instead.
    """
    if is_known(models, name):
        return
    choice = ", ".join(f"`{each}`" for each in [*listed(models), DEFAULT])
    raise ApiError(
        404,
        f"The model `{name}` does not exist here. Use {choice}, or add the name to `aliases` in the configuration.",
        param="model",
        code="model_not_found",
    )


def listed(models: Models) -> tuple[str, ...]:
    """The ids that `GET /v1/models` shows: the model's own first, then its aliases."""
    return tuple(dict.fromkeys([models.id, *models.aliases]))
