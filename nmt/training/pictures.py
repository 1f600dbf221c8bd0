"""Pictures of the soft alignment between references and the samples of a model in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from nmt.corpus import read_pairs
from nmt.model_directory import Contents
from nmt.sampling import DifferentiableSampler
from nmt.subwords import END
from nmt.training.objectives.soft_alignment import sampled
from nmt.translation.alignments import heat_map
from tfkfac.errors import InputError
from tfkfac.files import replacing


class AlignmentPictures:
    """Draws a_t(y) for chosen lines of the validation text: a row a step, a column a subword.

    Samples have the configured sampler, whatever the objective, and the same noise every time.

    Args:
        contents: configuration and subwords.
        model: the model.
        directory: for files called by update and line.

    Raises:
        InputError: if there is no such line, or the text cannot be read.
    """

    def __init__(self, contents: Contents, model: Any, directory: Path) -> None:
        config = contents.config
        assert config.data.validation_source is not None  # Config sees to it
        assert config.data.validation_target is not None
        files = Path(config.data.validation_source), Path(config.data.validation_target)
        text = list(read_pairs(*files))
        self._pairs: dict[int, tuple[list[int], list[int]]] = {}
        for line in config.validation.chosen_lines:
            if line > len(text):
                raise InputError(f"alignment_lines: there are only {len(text)} lines, not {line}")
            source, target = text[line - 1]
            self._pairs[line] = contents.source.encode(source), contents.target.encode(target)
        self._subwords, self._directory, self._model = contents.target, directory, model
        loss = config.loss
        self._sampler = DifferentiableSampler(loss.sampler, loss.temperature, loss.noise_scale)
        side = tf.TensorSpec([1, None], tf.int32)
        self._aligned = tf.function(
            self._align, input_signature=[side, side, tf.TensorSpec([], tf.int32)]
        )

    def __call__(self, update: int) -> None:
        """Draws all lines.

        Raises:
            InputError: if a file cannot be written.
        """
        longest = self._model.longest or 10**9
        for line, (source, target) in self._pairs.items():
            if max(len(source), len(target)) >= longest:
                continue  # the model cannot read it
            samples, weights = self._aligned([[*source, END]], [[*target, END]], line)
            pieces = self._subwords.pieces(samples.numpy().tolist())
            path = self._directory / f"{update:08d}-line-{line}.png"
            try:
                path.parent.mkdir(exist_ok=True)
                with replacing(path) as temporary:
                    heat_map(
                        self._subwords.pieces(target),
                        pieces,
                        np.asarray(weights)[:, : len(target)],
                        temporary,
                        ("reference", "sample"),
                    )
            except OSError as error:
                raise InputError(f"{path}: cannot be written ({error.strerror})") from error

    def _align(
        self, source: tf.Tensor, target: tf.Tensor, line: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Samples [steps] and weights [steps, target]."""
        encoding = self._model.encode(source)
        seed = tf.stack([line, 0])
        run, alignment = sampled(self._model, self._sampler, encoding, target, seed)
        return run.samples[:, 0], alignment.weights[0]
