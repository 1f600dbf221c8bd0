"""The contestants: SGD, AdamW, Muon and K-FAC from a plan's settings, under one schedule.

All of them follow the same learning-rate schedule over the planned steps: a short linear warm-up,
then half a cosine to zero. On several ranks all average their gradients by the same operation.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from models.muon import ConvolutionMuon
from models.schedules import WarmupCosineDecay, WarmupLinearDecay, WarmupStepDecay
from tfkfac import KFAC
from tfkfac.communication import detect
from tfkfac.errors import InputError, unknown
from tfkfac.options import SHARE, number

WARM_UP = 0.05  # of all steps
SCHEDULES = ("cosine", "linear", "constant")

_CLASSES: dict[str, Any] = {
    "sgd": keras.optimizers.SGD,
    "adamw": keras.optimizers.AdamW,
    "muon": ConvolutionMuon,
    "kfac": KFAC,
}
# Of the schedule, which every optimizer has.
_OWN_SETTINGS = ("schedule", "warm_up")
# What is no setting of a contestant, but given by the network or by where it runs.
_GIVEN = {"self", "kwargs", "optimizer", "name", "exclude_layers", "communication"}


def known_settings(optimizer: str) -> tuple[str, ...]:
    """Names of the settings that an optimizer takes.

    Raises:
        InputError: if there is no such optimizer.
    """
    if optimizer not in _CLASSES:
        raise unknown("optimizer", optimizer, _CLASSES, "--optimizers")
    arguments = inspect.signature(_CLASSES[optimizer].__init__).parameters
    return (*(name for name in arguments if name not in _GIVEN), *_OWN_SETTINGS)


def setting(optimizer: str, settings: Mapping[str, Any], name: str) -> Any:
    """The value of a setting, by default the optimizer's; None where it has no such setting."""
    argument = inspect.signature(_CLASSES[optimizer].__init__).parameters.get(name)
    return settings.get(name, argument.default) if argument is not None else None


def check(optimizer: str, settings: Mapping[str, Any], where: str) -> None:
    """Checks the names of settings, their learning rate and their schedule.

    Args:
        optimizer: by name.
        settings: its arguments; `schedule` and `warm_up`, a fraction of the steps.
        where: what error messages call the place.

    Raises:
        InputError: naming the setting.
    """
    known = known_settings(optimizer)
    for name in settings:
        if name not in known:
            raise unknown(f"setting of {optimizer}", name, known, where)
    try:
        positive = number(settings["learning_rate"]) > 0
    except (KeyError, TypeError, ValueError):
        positive = False
    if not positive:
        given = settings.get("learning_rate")
        raise InputError(f"{where}: {optimizer} needs a learning_rate above 0, not {given!r}")
    schedule, warm_up = settings.get("schedule", "cosine"), settings.get("warm_up", WARM_UP)
    if schedule not in SCHEDULES:
        raise unknown("schedule", str(schedule), SCHEDULES, where)
    if not isinstance(warm_up, int | float) or not SHARE.valid(warm_up):
        raise InputError(f"{where}: warm_up is {SHARE.expected}, a part of all steps: {warm_up!r}")


def learning_rate(settings: Mapping[str, Any], steps: int) -> Any:
    """The schedule, a `keras.optimizers.schedules.LearningRateSchedule`, over so many steps."""
    base = settings["learning_rate"]
    warm_up = min(round(settings.get("warm_up", WARM_UP) * steps), steps - 1)
    schedule = settings.get("schedule", "cosine")
    if schedule == "constant":
        return WarmupStepDecay(base, [], warmup_steps=warm_up)
    decay = {"cosine": WarmupCosineDecay, "linear": WarmupLinearDecay}[schedule]
    return decay(base, steps, warmup_steps=warm_up)


def builder(
    optimizer: str, settings: Mapping[str, Any], steps: int, model: keras.Model
) -> Callable[[], Any]:
    """What makes the optimizer, as `Workload.compile` takes it: some networks need two.

    Muon orthogonalises the kernels of hidden layers; vectors, embeddings and the kernels that make
    the network's outputs get AdamW, as its authors say. K-FAC's KL clip is reckoned with the
    schedule's peak unless the settings say otherwise: with the current rate the clip would undo
    the schedule that everybody follows.

    Args:
        optimizer: by name.
        settings: see `check`.
        steps: of the whole training.
        model: the network.

    Raises:
        InputError: if a setting is unknown or out of its range.
    """
    check(optimizer, settings, f"settings of {optimizer}")
    arguments = {name: value for name, value in settings.items() if name not in _OWN_SETTINGS}
    if optimizer == "muon":
        heads = sorted(output_kernels(model))
        arguments["exclude_layers"] = [f"^{re.escape(path)}$" for path in heads]
    if optimizer == "kfac":
        arguments.setdefault("kl_clip_learning_rate", settings["learning_rate"])

    def build() -> Any:
        rate = learning_rate(settings, steps)
        kind = _CLASSES[optimizer]
        if optimizer != "kfac":  # which does it by itself
            kind = _averaging(kind)
        try:
            return kind(**{**arguments, "learning_rate": rate})
        except (TypeError, ValueError) as error:
            raise InputError(f"settings of {optimizer}: {error}") from error

    return build


def output_kernels(model: keras.Model) -> set[str]:
    """Paths of the kernels that make a network's outputs: the last ones before them.

    Networks within a network, such as a generator and a discriminator, have their own outputs; one
    that ends in a residual sum makes features, no outputs.
    """
    paths: set[str] = set()
    for network in _networks(model):
        waiting = list(tf.nest.flatten(network.outputs))
        seen: set[int] = set()
        while waiting:
            layer = waiting.pop()._keras_history.operation
            if id(layer) in seen or isinstance(layer, keras.layers.Add):
                continue
            seen.add(id(layer))
            kernels = [w for w in layer.trainable_weights if len(w.shape) > 1]
            paths |= {kernel.path for kernel in kernels}
            if not kernels:
                for node in layer._inbound_nodes:
                    waiting += node.input_tensors
    return paths


def _networks(model: Any) -> Iterator[Any]:
    """The functional networks that a model is or holds."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model) and getattr(layer, "outputs", None):
            yield layer


def _averaging(kind: Any) -> Any:
    """An optimizer's class whose gradients are means over all ranks, if there are several.

    A class for each optimizer: two of one class would exchange under the same names.
    """
    communication = detect()
    if communication.size == 1:
        return kind

    class Averaging(kind):
        """Averages gradients before anything is done with them."""

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            present = [tf.convert_to_tensor(g) for g in grads if g is not None]
            means = iter(communication.average(present, "gradients"))
            averaged = [None if g is None else next(means) for g in grads]
            super().apply(averaged, trainable_variables)

    Averaging.__name__ = kind.__name__
    return Averaging
