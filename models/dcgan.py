"""DCGAN: a convolutional generator and its adversary (Radford, Metz and Chintala, ICLR 2016).

Of the paper are the layers, the initial values (normal, deviation 0.02), the leaky ReLU's slope of
0.2, the uniform latent vectors, and the losses; Adam with a learning rate of 2e-4 and β₁ = 0.5 is
what it trains with. Batch normalisation is everywhere but at the generator's output and the
discriminator's input, and sees real and generated images in separate batches.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import tensorflow as tf

LATENT = 100
NEGATIVE_SLOPE = 0.2
INITIAL_SIDE = 4
KERNEL = 5
BATCH_NORM_MOMENTUM = 0.9
BATCH_NORM_EPSILON = 1e-5


def _initializer() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)


def _batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(
        momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name
    )(x)


def _doublings(size: int) -> int:
    """How often 4 must be doubled for `size`."""
    doublings = (size // INITIAL_SIDE).bit_length() - 1
    if doublings < 1 or INITIAL_SIDE * 2**doublings != size:
        raise ValueError(f"images have 8, 16, 32, ... pixels a side, not {size}")
    return doublings


def generator(
    size: int = 64, channels: int = 3, filters: int = 128, latent: int = LATENT
) -> keras.Model:
    """From latent vectors to images in [-1, 1] (the paper's figure 1).

    Args:
        size: height and width, 4 times a power of two.
        channels: of an image.
        filters: of the last hidden layer; each one before has twice as many.
        latent: length of a latent vector.

    Returns:
        A Keras model from N x latent to N x size x size x channels.

    Raises:
        ValueError: for another size.
    """
    doublings = _doublings(size)
    inputs = keras.Input((latent,), name="latent")
    width = filters * 2 ** (doublings - 1)
    x = keras.layers.Dense(
        INITIAL_SIDE**2 * width,
        use_bias=False,
        kernel_initializer=_initializer(),
        name="projection",
    )(inputs)
    x = keras.layers.Reshape((INITIAL_SIDE, INITIAL_SIDE, width), name="reshape")(x)
    for number in range(1, doublings + 1):
        x = _batch_norm(x, f"bn{number}")
        x = keras.layers.Activation("relu", name=f"relu{number}")(x)
        last = number == doublings
        x = keras.layers.Conv2DTranspose(
            channels if last else width // 2**number,
            KERNEL,
            strides=2,
            padding="same",
            use_bias=last,
            kernel_initializer=_initializer(),
            name=f"deconv{number}",
        )(x)
    x = keras.layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model(inputs, x, name="generator")


def discriminator(size: int = 64, channels: int = 3, filters: int = 128) -> keras.Model:
    """From images to one logit each, positive for real ones: the generator mirrored.

    Args:
        size, channels: as for `generator`.
        filters: of the first layer; each further one has twice as many.

    Returns:
        A Keras model from N x size x size x channels to N x 1 logits.
    """
    inputs = keras.Input((size, size, channels), name="image")
    x = inputs
    for number in range(1, _doublings(size) + 1):
        x = keras.layers.Conv2D(
            filters * 2 ** (number - 1),
            KERNEL,
            strides=2,
            padding="same",
            use_bias=number == 1,
            kernel_initializer=_initializer(),
            name=f"conv{number}",
        )(x)
        if number > 1:
            x = _batch_norm(x, f"bn{number}")
        x = keras.layers.LeakyReLU(NEGATIVE_SLOPE, name=f"relu{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(
        1, kernel_initializer=_initializer(), dtype="float32", name="classifier"
    )(x)
    return keras.Model(inputs, x, name="discriminator")


def discriminator_loss(real_logits: Any, fake_logits: Any) -> Any:
    """-log D(real) - log(1 - D(fake)), each the mean over its batch, D = sigmoid(logit)."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(
        tf.nn.softplus(fake_logits)
    )


def generator_loss(fake_logits: Any) -> Any:
    """-log D(fake): the form whose gradient does not vanish while the discriminator wins."""
    return tf.reduce_mean(tf.nn.softplus(-fake_logits))


class DCGAN(keras.Model):
    """Both networks, and the step that trains them in turn.

    `compile` takes an optimizer for each. A batch's targets are ignored: `fit` needs images alone.

    Args:
        size, channels, filters, latent: as for `generator` and `discriminator`.
        seed: of the latent vectors.

    Call arguments:
        inputs: latent vectors, N x latent.

    Example:

    >>> DCGAN(size=8, channels=1, filters=4)(keras.ops.zeros((2, 100))).shape
    TensorShape([2, 8, 8, 1])
    """

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        filters: int = 128,
        latent: int = LATENT,
        seed: int | None = None,
    ) -> None:
        super().__init__(name="dcgan")
        self.latent = latent
        self.generator = generator(size, channels, filters, latent)
        self.discriminator = discriminator(size, channels, filters)
        self.seeds = keras.random.SeedGenerator(seed)
        self.discriminator_tracker = keras.metrics.Mean(name="discriminator_loss")
        self.generator_tracker = keras.metrics.Mean(name="generator_loss")
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.generator(inputs, training=training)

    def compile(self, optimizer: Any, discriminator_optimizer: Any, **options: Any) -> None:
        """Args: the generator's optimizer, the discriminator's, and Keras's further options."""
        super().compile(optimizer=optimizer, **options)
        self.discriminator_optimizer = discriminator_optimizer
        self.optimizer.build(self.generator.trainable_variables)
        self.discriminator_optimizer.build(self.discriminator.trainable_variables)

    def sample_latent(self, count: Any) -> Any:  # -> count x latent
        """Latent vectors, uniform in [-1, 1]."""
        return keras.random.uniform((count, self.latent), -1.0, 1.0, seed=self.seeds)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step of the discriminator on a real and a generated batch, then one of the generator
        on another generated batch."""
        images = keras.utils.unpack_x_y_sample_weight(data)[0]
        count = tf.shape(images)[0]

        variables = self.discriminator.trainable_variables
        fakes = self.generator(self.sample_latent(count), training=True)
        with tf.GradientTape() as tape:
            judged_loss = discriminator_loss(
                self.discriminator(images, training=True),
                self.discriminator(tf.stop_gradient(fakes), training=True),
            )
        gradients = tape.gradient(judged_loss, variables)
        self.discriminator_optimizer.apply(gradients, variables)

        variables = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            fakes = self.generator(self.sample_latent(count), training=True)
            fooling_loss = generator_loss(self.discriminator(fakes, training=True))
        self.optimizer.apply(tape.gradient(fooling_loss, variables), variables)

        self.discriminator_tracker.update_state(judged_loss)
        self.generator_tracker.update_state(fooling_loss)
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def metrics(self) -> list[Any]:
        """The means of both losses."""
        return [self.discriminator_tracker, self.generator_tracker]


dcgan_tiny = partial(DCGAN, size=16, channels=1, filters=8, latent=16)
dcgan_small = partial(DCGAN, size=32, channels=1, filters=16, latent=32)
dcgan_reference = partial(DCGAN, size=64, channels=1)
