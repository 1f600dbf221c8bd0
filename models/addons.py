"""Callbacks of tensorflow-addons in the training command.

They need the environment of TensorFlow 2.15 (docs/compatibility.md).
"""

from __future__ import annotations

from typing import Any

from models.config import TrainingConfig
from tfkfac.errors import InputError
from tfkfac.ranks import Ranks


def callbacks(config: TrainingConfig, ranks: Ranks) -> list[Any]:
    """What the options time_limit and progress ask for.

    Args:
        config: the training's.
        ranks: the first draws the progress; all agree on when the time is over.

    Raises:
        InputError: if they need tensorflow-addons and it is missing.
    """
    chosen = {"time_limit": config.time_limit is not None, "progress": config.progress == "tqdm"}
    if not any(chosen.values()):
        return []
    try:
        import tensorflow_addons as tfa
    except ImportError as error:
        option = next(name for name, asked in chosen.items() if asked)
        raise InputError(
            f"{option}: tensorflow-addons is missing, which needs TensorFlow 2.15: "
            "see docs/compatibility.md"
        ) from error
    found: list[Any] = []
    if config.time_limit is not None:
        found.append(tfa.callbacks.TimeStopping(config.time_limit, verbose=int(ranks.is_first)))
        if ranks.size > 1:
            from tfkfac.rank_callbacks import AgreeToStop

            found.append(AgreeToStop())
    if config.progress == "tqdm" and ranks.is_first:
        found.append(tfa.callbacks.TQDMProgressBar())
    return found
