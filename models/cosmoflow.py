"""CosmoFlow: cosmological parameters from particle counts (Mathuriya et al., SC18).

The variant of MLPerf HPC: Mean squared error between targets scaled to [-1, 1] and outputs
1.2 tanh(...), which reach a little beyond them.
"""

from __future__ import annotations

from functools import partial

import keras

NEGATIVE_SLOPE = 0.3
OUTPUT_SCALE = 1.2


def cosmoflow(
    input_shape: tuple[int, int, int, int] = (128, 128, 128, 4),
    outputs: int = 4,
    blocks: int = 5,
    filters: int = 32,
    dropout: float = 0.5,
    average: bool = False,
) -> keras.Model:
    """3-D convolutions and pooling, doubling the filters, then three dense layers.

    Args:
        input_shape: three sides, each at least 2^blocks, and channels (redshifts).
        outputs: parameters to estimate.
        blocks: of a 3³ convolution, a leaky ReLU and a pooling by 2.
        filters: of the first block; each further one has twice as many.
        dropout: after both hidden dense layers.
        average: take means, of each pooling and of all that the last one leaves, in place of maxima
            and a flattened volume. Small networks learn sooner with them.

    Returns:
        A Keras model from N x side x side x side x channels to N x outputs, float32.

    Raises:
        ValueError: if pooling leaves nothing of the input.

    Example:

    >>> cosmoflow((32, 32, 32, 4), filters=8).output_shape
    (None, 4)
    """
    if min(input_shape[:3]) < 2**blocks:
        raise ValueError(f"{blocks} poolings by 2 leave nothing of {input_shape[:3]}")
    pooling = keras.layers.AveragePooling3D if average else keras.layers.MaxPooling3D
    inputs = keras.Input(input_shape, name="counts")
    x = inputs
    for block in range(blocks):
        name = f"block{block + 1}"
        x = keras.layers.Conv3D(filters * 2**block, 3, padding="same", name=f"{name}_conv")(x)
        x = keras.layers.LeakyReLU(NEGATIVE_SLOPE, name=f"{name}_relu")(x)
        x = pooling(2, name=f"{name}_pool")(x)
    features = keras.layers.GlobalAveragePooling3D if average else keras.layers.Flatten
    x = features(name="features")(x)
    for number, units in enumerate((128, 64), start=1):
        x = keras.layers.Dense(units, name=f"dense{number}")(x)
        x = keras.layers.LeakyReLU(NEGATIVE_SLOPE, name=f"dense{number}_relu")(x)
        x = keras.layers.Dropout(dropout, name=f"dense{number}_dropout")(x)
    x = keras.layers.Dense(outputs, activation="tanh", dtype="float32", name="parameters")(x)
    x = keras.layers.Rescaling(OUTPUT_SCALE, dtype="float32", name="scale")(x)
    return keras.Model(inputs, x, name="cosmoflow")


_small = partial(cosmoflow, blocks=3, filters=8, dropout=0.0, average=True)
cosmoflow_tiny = partial(_small, (16, 16, 16, 4))
cosmoflow_small = partial(_small, (24, 24, 24, 4))
cosmoflow_reference = cosmoflow
