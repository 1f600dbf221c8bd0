"""Muon (Jordan et al. 2024) for networks with convolutions."""

from __future__ import annotations

import re
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="models")
class ConvolutionMuon(keras.optimizers.Muon):
    """Keras's Muon, applied to convolution kernels as well.

    Keras orthogonalises the updates of two-dimensional variables only, which in a residual
    network leaves everything but the classifier to AdamW. As in Muon's reference implementation,
    a convolution kernel counts here as a matrix, [height * width * input channels, output
    channels]. Vectors, and whatever `exclude_layers` names, still get AdamW; the classifier
    belongs there.

    Arguments are those of `keras.optimizers.Muon`.
    """

    def _should_use_adamw(self, variable: Any) -> bool:
        if len(variable.shape) <= 2:
            return super()._should_use_adamw(variable)
        return any(re.search(keyword, variable.path) for keyword in self.exclude_layers)

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        return ops.reshape(super().zeropower_via_newtonschulz5(_matrix(x), steps), x.shape)

    def lr_adjust(self, x: Any) -> Any:
        return ops.reshape(super().lr_adjust(_matrix(x)), x.shape)


def _matrix(x: Any) -> Any:
    return ops.reshape(x, (-1, x.shape[-1]))
