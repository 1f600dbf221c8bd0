"""Model directories of small models that were never trained, made in a moment."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from nmt import config_files
from nmt.model_directory import Contents, ModelDirectory
from nmt.models import build_model
from nmt.subwords import BEGIN, END, PAD, UNKNOWN, Subwords

TEXT = ["ein haus steht da", "ab und zu ein baum", "das haus ist rot", "zu hause ist es still"]
SIZES = {
    "embedding_size": "16",
    "encoder_layers": "2",
    "decoder_layers": "2",
    "heads": "2",
    "feed_forward_size": "24",
    "encoder_units": "12",
    "decoder_units": "16",
}


def untrained(folder: Path, architecture: str, **options: str) -> Path:
    """Writes a model directory; `options` are those of nmt-train, as text."""
    source = Subwords.train(TEXT * 5, 280)
    target = source
    values = config_files.read(config_files.find(f"tiny-{architecture}"))
    known = config_files.read(config_files.find(f"tiny-{architecture}")).values
    sizes = {name: size for name, size in SIZES.items() if name in known}
    config = config_files.from_flags({**sizes, **options}, values).config()
    if config.subwords.target_vocabulary_size is not None:
        target = Subwords.train([line.upper() for line in TEXT] * 5, 278)
    contents = Contents(config, source, target)
    directory = ModelDirectory(folder)
    directory.create(contents, {})
    keras.utils.set_random_seed(3)
    model = build_model(contents.model_config)
    # Far apart, so that rounding ranks no hypothesis differently, and of plausible lengths.
    generator = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(weight + 0.2 * generator.standard_normal(weight.shape))
    bias = keras.ops.convert_to_numpy(model.output_layer.bias).copy()
    bias[[PAD, UNKNOWN, BEGIN]], bias[END] = -1e4, 3.0
    model.output_layer.bias.assign(bias)
    model.save_weights(directory.best)
    return folder
