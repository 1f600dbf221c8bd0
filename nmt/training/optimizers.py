"""The optimizer that a configuration asks for."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from nmt.config import Optimization
from tfkfac.errors import InputError, unknown

# Set by options of their own, or of no use here: weights for inference are the trained ones, and
# an update is one batch of each rank.
_NOT_HERE = {
    "learning_rate": "learning_rate is an option of its own",
    "weight_decay": "weight_decay is an option of its own",
    "clipnorm": "gradients are clipped by clip_norm",
    "clipvalue": "gradients are clipped by clip_norm",
    "global_clipnorm": "gradients are clipped by clip_norm",
    "use_ema": "nmt-train averages checkpoints instead (average)",
    "ema_momentum": "nmt-train averages checkpoints instead (average)",
    "ema_overwrite_frequency": "nmt-train averages checkpoints instead (average)",
    "loss_scale_factor": "precision mixed_float16 scales the loss by itself",
    "gradient_accumulation_steps": "use a larger batch_tokens",
    "name": "it would change nothing",
}


def build(options: Optimization, precision: str = "float32") -> Any:
    """The optimizer, a `keras.optimizers.Optimizer`, at the base learning rate.

    Args:
        options: what to build.
        precision: the dtype policy; under mixed_float16 the loss is scaled.

    Raises:
        InputError: if there is no such argument in `optimizer_options`, or it is wrong.
    """
    if options.optimizer == "kfac":
        from tfkfac import KFAC

        kind: Any = KFAC
    else:
        kind = find(options.optimizer)
    known = [name for name in inspect.signature(kind).parameters if name != "kwargs"]
    own = dict(options.optimizer_options)
    for name in own:
        if name in _NOT_HERE:
            raise InputError(f"optimizer_options: no {name} here: {_NOT_HERE[name]}")
        if name not in known:
            usable = [item for item in known if item not in _NOT_HERE]
            raise unknown("argument", name, usable, f"optimizer_options: {options.optimizer}")
    inner = own.get("optimizer")  # K-FAC's
    try:
        if inner is None:
            own["learning_rate"] = options.learning_rate
        else:
            own["optimizer"] = find(str(inner))(learning_rate=options.learning_rate)
        result = kind(
            weight_decay=options.weight_decay or None, global_clipnorm=options.clip_norm, **own
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer_options: {str(error).splitlines()[0]}") from error
    if precision == "mixed_float16":
        result = keras.optimizers.LossScaleOptimizer(result)
    return result


def find(name: str) -> Any:
    """Keras's optimizer class of a name in lower case.

    Raises:
        InputError: if there is none.
    """
    classes = {
        key.lower(): value
        for key, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    if name not in classes:
        raise unknown("optimizer", name, classes, "optimizer")
    return classes[name]
