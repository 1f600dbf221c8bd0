"""What the ranks of a training tell each other besides gradients; Horovod must be running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from nmt import weights
from tfkfac.ranks import Ranks

_DISTANCE_OF_SEEDS = 1_000_003


def from_first(value: Any) -> Any:
    """The first rank's value, whatever it is; all ranks must call this."""
    import horovod.tensorflow as hvd

    return hvd.broadcast_object(value, root_rank=0, name="nmt_object")


def broadcast(variables: Sequence[Any]) -> None:
    """Gives every rank the first one's values."""
    import horovod.tensorflow as hvd

    for number, variable in enumerate(variables):
        value = tf.convert_to_tensor(variable)
        variable.assign(hvd.broadcast(value, root_rank=0, name=f"nmt_variable_{number}"))


def begin_alike(model: Any, generators: Sequence[Any], ranks: Ranks) -> None:
    """Gives every rank the first one's weights and optimizer, and random numbers of its own.

    Args:
        model: compiled with its optimizer, which is built.
        generators: seed generators that are not the model's.
        ranks: this process among others.
    """
    from tfkfac.rank_callbacks import BroadcastVariables

    callback = BroadcastVariables()
    callback.set_model(model)
    callback.on_train_begin()
    states = weights.random_states(model, generators)
    broadcast(states)
    for state in states:
        seed, counter = np.asarray(state)
        # Ranks count alike, so that the first one's counter resumes all of them.
        other = (int(seed) + ranks.rank * _DISTANCE_OF_SEEDS) % 2**31
        state.assign(np.array([other, counter], seed.dtype))
