"""Differentiable sampling of words: what a decoder feeds back to itself while it is trained.

Of logits o, Gumbel noise g = -log(-log u), its scale β and a temperature τ,

    ỹ = softmax((o + β g) / τ)

is a relaxed sample (Jang et al., 2017; Maddison et al., 2017), without noise the softmax itself. A
straight-through sample (Bengio et al., 2013) is onehot(argmax ỹ), with the gradient of ỹ. A sample
times the embedding table is what the decoder reads next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from nmt.config import SAMPLERS
from nmt.models.embeddings import at_least_float32


@dataclass(frozen=True)
class DifferentiableSampler:
    """Samples of words, through which gradients reach the logits.

    Args:
        kind: `"softmax"`, `"st-softmax"` (straight-through), `"gumbel-softmax"` or
            `"st-gumbel-softmax"`; the first two are without noise.
        temperature: τ. It changes which words are sampled by no kind of straight-through sampler.
        noise_scale: β; 0 for none.
        differentiable: whether gradients pass; otherwise samples are constants.

    Raises:
        ValueError: if there is no such kind, or a number is out of range.

    Example:

    >>> sampler = DifferentiableSampler()
    >>> weights = sampler(logits, sampler.noise(tf.shape(logits), seed))
    >>> embeddings = model.embed_target_mixture(weights)
    """

    kind: str = "st-gumbel-softmax"
    temperature: float = 1.0
    noise_scale: float = 1.0
    differentiable: bool = True

    def __post_init__(self) -> None:
        if self.kind not in SAMPLERS:
            raise ValueError(f"kind: expected one of {', '.join(SAMPLERS)}, got {self.kind!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature!r}")
        if not self.noise_scale >= 0:
            raise ValueError(f"noise_scale: expected 0 or more, got {self.noise_scale!r}")

    @property
    def is_straight_through(self) -> bool:
        """Whether samples are single words."""
        return self.kind.startswith("st-")

    @property
    def is_noisy(self) -> bool:
        """Whether samples are random."""
        return "gumbel" in self.kind and self.noise_scale > 0

    def noise(self, shape: Any, seed: tf.Tensor, dtype: Any = tf.float32) -> tf.Tensor | None:
        """What is to be added to logits: β g, or None where nothing is.

        Args:
            shape: of the logits.
            seed: two integers; the same seed, the same noise.
            dtype: of the logits, float32 or wider.
        """
        return self.noise_scale * gumbel(shape, seed, dtype) if self.is_noisy else None

    def __call__(self, logits: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """The weights of all words in each sample: [..., V] -> [..., V], float32 or wider."""
        relaxed = self.relaxed(logits, noise)
        if self.is_straight_through:
            words = tf.one_hot(self.words(logits, noise), logits.shape[-1], dtype=relaxed.dtype)
            relaxed = _with_gradient_of(relaxed, words)
        return relaxed if self.differentiable else tf.stop_gradient(relaxed)

    def relaxed(self, logits: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """softmax((o + β g) / τ) [..., V]."""
        logits = _noisy(logits, noise)
        return tf.nn.softmax(logits if self.temperature == 1 else logits / self.temperature)

    def words(self, logits: tf.Tensor, noise: tf.Tensor | None = None) -> tf.Tensor:
        """The word of greatest weight in each sample, int32 [...]."""
        return tf.argmax(_noisy(logits, noise), axis=-1, output_type=tf.int32)


def gumbel(shape: Any, seed: tf.Tensor, dtype: Any = tf.float32) -> tf.Tensor:
    """Standard Gumbel noise -log(-log u); the argmax of o + g is a sample of softmax(o)."""
    # Philox on every machine: the same seed, the same sample.
    tiny = tf.as_dtype(dtype).as_numpy_dtype(1e-30)  # log 0 would be infinite
    uniform = tf.random.stateless_uniform(shape, seed, tiny, dtype=dtype, alg="philox")
    return -tf.math.log(-tf.math.log(uniform))


def _noisy(logits: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
    logits = tf.cast(logits, at_least_float32(logits.dtype))
    return logits if noise is None else logits + noise


@tf.custom_gradient
def _with_gradient_of(relaxed: tf.Tensor, value: tf.Tensor) -> Any:
    return tf.identity(value), lambda upstream: (upstream, None)
