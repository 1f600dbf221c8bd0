"""A two-stage detector of extreme weather (Ren et al., "Faster R-CNN", NIPS 2015).

A backbone makes features of the map. A region proposal network says at each of them which of a few
anchors hold something; the best proposals are cut out of the features (with RoIAlign, of He et al.
2017, instead of rounding) and a head tells their class and corrects their box.

The loss needs the boxes, so the model has its own: `compile` it without a loss. Targets are N x M x
5, top, left, bottom, right in pixels and the class, -1 for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from models import boxes as box
from models.data.storms import CLASSES
from models.resnet import imagenet_resnet

PROPOSAL_OVERLAP = 0.7  # suppression among proposals
PROPOSAL_TRANSITION = 1 / 9  # of smooth L1
# By how much the head's corrections are divided: proposals are already near.
CORRECTION_SCALE = (0.1, 0.1, 0.2, 0.2)


@dataclass(frozen=True)
class Sampling:
    """Numbers of boxes at each stage, those of the paper by default.

    Attributes:
        anchors: that take part in the loss, of each map; at most half of them positive.
        before_suppression, proposals: the best anchors that are suppressed, and what stays.
        regions: proposals that take part in the loss; at most a quarter of them positive.
        detections: of a map, at most.
    """

    anchors: int = 256
    before_suppression: int = 2000
    proposals: int = 300
    regions: int = 128
    detections: int = 100


def residual_backbone(
    input_shape: tuple[int, int, int], filters: Sequence[int] = (32, 48, 64, 96)
) -> keras.Model:
    """A small backbone: a strided 3x3 convolution and a residual one for each number of filters."""

    def convolution(x: Any, count: int, stride: int, name: str) -> Any:
        x = keras.layers.Conv2D(
            count, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)

    inputs = keras.Input(input_shape, name="map")
    x = inputs
    for number, count in enumerate(filters, start=1):
        x = keras.layers.ReLU(name=f"down{number}_relu")(convolution(x, count, 2, f"down{number}"))
        same = convolution(x, count, 1, f"same{number}")
        x = keras.layers.Add(name=f"add{number}")([x, same])
        x = keras.layers.ReLU(name=f"same{number}_relu")(x)
    return keras.Model(inputs, x, name="backbone")


def resnet50_backbone(input_shape: tuple[int, int, int]) -> keras.Model:
    """ResNet-50 up to its third stage: 1024 features for 16x16 pixels."""
    whole = imagenet_resnet(50, input_shape)
    features = whole.get_layer("stage3_block6_relu3").output
    return keras.Model(whole.input, features, name="backbone")


def proposal_network(channels: int, width: int, anchors: int) -> keras.Model:
    """A 3x3 convolution and, for each anchor of a cell, a logit and four corrections.

    Args:
        channels: of the features.
        width: filters of the convolution.
        anchors: of a cell.

    Returns:
        A Keras model from N x rows x columns x channels to (N x rows x columns x anchors,
        N x rows x columns x 4 anchors).
    """
    inputs = keras.Input((None, None, channels), name="features")
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="rpn_conv")(inputs)
    logits = keras.layers.Conv2D(anchors, 1, dtype="float32", name="rpn_logits")(x)
    corrections = keras.layers.Conv2D(4 * anchors, 1, dtype="float32", name="rpn_corrections")(x)
    return keras.Model(inputs, [logits, corrections], name="proposals")


def region_head(channels: int, crop: int, units: int, classes: int) -> keras.Model:
    """Two dense layers, class logits (background first) and corrections for each class.

    Args:
        channels: of the features.
        crop: bins of a side.
        units: of each hidden layer.
        classes: without the background.

    Returns:
        A Keras model from N x crop x crop x channels to (N x (1 + classes), N x 4 classes).
    """
    inputs = keras.Input((crop, crop, channels), name="crops")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for number in (1, 2):
        x = keras.layers.Dense(units, activation="relu", name=f"head_dense{number}")(x)
    logits = keras.layers.Dense(1 + classes, dtype="float32", name="head_logits")(x)
    corrections = keras.layers.Dense(4 * classes, dtype="float32", name="head_corrections")(x)
    return keras.Model(inputs, [logits, corrections], name="head")


def proposal_loss(
    logits: Any, corrections: Any, label: Any, chosen: Any, wanted: Any, count: int
) -> Any:
    """Log loss of all chosen anchors plus smooth L1 of the positive ones, over `count`.

    Args:
        logits: ... x N.
        corrections: ... x N x 4, as predicted.
        label: POSITIVE, NEGATIVE or IGNORED, ... x N.
        chosen: which take part, ... x N booleans.
        wanted: the corrections that lead to the boxes, ... x N x 4.
        count: anchors of a map.

    Returns:
        The mean over maps, a scalar.
    """
    positive = tf.cast(chosen & (label == box.POSITIVE), tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(positive, logits)
    moves = tf.reduce_sum(box.smooth_absolute(corrections - wanted, PROPOSAL_TRANSITION), -1)
    terms = tf.cast(chosen, tf.float32) * entropy + positive * moves
    return tf.reduce_mean(tf.reduce_sum(terms, -1)) / count


def region_loss(logits: Any, corrections: Any, kind: Any, wanted: Any, weight: Any) -> Any:
    """Cross entropy of regions plus smooth L1 of those with a storm, over the number of regions.

    Args:
        logits: N x (1 + classes).
        corrections: N x classes x 4.
        kind: 0 for background, 1 + class otherwise, N integers.
        wanted: N x 4.
        weight: 1 for regions that take part, 0 for padding, N.
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(kind, logits)
    own = tf.gather(corrections, tf.maximum(kind - 1, 0), batch_dims=1)
    moves = tf.reduce_sum(box.smooth_absolute(own - wanted), -1)
    terms = weight * (entropy + tf.cast(kind > 0, tf.float32) * moves)
    return tf.reduce_sum(terms) / tf.maximum(tf.reduce_sum(weight), 1.0)


@keras.saving.register_keras_serializable(package="models")
class FasterRCNN(keras.Model):
    """The detector.

    Args:
        backbone: from maps of a fixed shape to features.
        sizes, ratios: of the anchors, see `boxes.anchors`.
        classes: without the background.
        width: filters of the proposal network.
        crop: bins of a side of what is cut out.
        units: of the head's hidden layers.
        sampling: numbers of boxes.
        seed: of the samples.

    Call arguments:
        inputs: maps, N x rows x columns x channels.

    Returns:
        A dictionary of `features`, `logits` and `corrections` of the anchors, and `proposals`,
        N x proposals x 4. `predict` returns detections instead, see `detect`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        sizes: Sequence[float],
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        classes: int = len(CLASSES),
        width: int = 512,
        crop: int = 7,
        units: int = 1024,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(name="faster_rcnn")
        _, rows, columns, channels = backbone.output_shape
        self.map_shape = backbone.input_shape[1:3]
        self.stride = self.map_shape[0] // rows
        self.classes = classes
        self.crop = crop
        self.sampling = sampling or Sampling()
        self.anchors = box.anchors((rows, columns), self.stride, sizes, ratios)
        self.backbone = backbone
        self.proposer = proposal_network(channels, width, len(sizes) * len(ratios))
        self.head = region_head(channels, crop, units, classes)
        self.seeds = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        features = self.backbone(inputs, training=training)
        logits, corrections = self.proposer(features, training=training)
        number = len(self.anchors)
        logits = tf.reshape(logits, [-1, number])
        corrections = tf.reshape(corrections, [-1, number, 4])
        return {
            "features": features,
            "logits": logits,
            "corrections": corrections,
            "proposals": self._propose(tf.stop_gradient(logits), tf.stop_gradient(corrections)),
        }

    def _propose(self, logits: Any, corrections: Any) -> Any:  # -> N x proposals x 4
        candidates = min(self.sampling.before_suppression, len(self.anchors))
        scores, numbers = tf.math.top_k(logits, candidates)
        chosen = tf.gather(corrections, numbers, batch_dims=1)
        proposals = box.decode(chosen, tf.gather(self.anchors, numbers))
        proposals = box.clip(proposals, self.map_shape)
        kept, _ = box.suppress(proposals, scores, self.sampling.proposals, PROPOSAL_OVERLAP)
        return tf.gather(proposals, kept, batch_dims=1)  # the best again where there are no more

    def _judge(self, features: Any, regions: Any, training: bool | None) -> tuple[Any, Any]:
        """Class logits, (N B) x (1 + classes), and corrections, (N B) x classes x 4, of regions."""
        features = tf.cast(features, tf.float32)
        crops = box.aligned_crops(features, regions, self.stride, self.crop)
        logits, corrections = self.head(crops, training=training)
        return logits, tf.reshape(corrections, [-1, self.classes, 4])

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The sum of both stages' losses, from what `call` returns; also for `fit`."""
        truth, present = y[..., :4], y[..., 4] >= 0
        loss = self._proposal_loss(truth, present, y_pred)
        loss += self._region_loss(truth, present, y[..., 4], y_pred, training)
        return tf.add_n([loss, *self.losses]) if self.losses else loss

    def _proposal_loss(self, truth: Any, present: Any, outputs: Any) -> Any:
        anchors = tf.constant(self.anchors)
        matched, label = box.match(
            box.overlaps(anchors[None], truth), present, 0.7, 0.3, every_object=True
        )
        chosen = box.sample(label, self.sampling.anchors, 0.5, self._priorities(label))
        wanted = box.encode(tf.gather(truth, matched, batch_dims=1), anchors)
        return proposal_loss(
            outputs["logits"], outputs["corrections"], label, chosen, wanted, self.sampling.anchors
        )

    def _region_loss(
        self, truth: Any, present: Any, kinds: Any, outputs: Any, training: bool
    ) -> Any:
        # The true boxes are candidates, too: at first no proposal is near one.
        candidates = tf.concat([outputs["proposals"], truth], axis=1)
        matched, label = box.match(
            box.overlaps(candidates, truth), present, 0.5, 0.5, every_object=False
        )
        padding = tf.zeros_like(label[:, : -truth.shape[1]], tf.bool)
        label = tf.where(tf.concat([padding, ~present], axis=1), box.IGNORED, label)
        count = min(self.sampling.regions, candidates.shape[1])
        chosen = box.sample(label, count, 0.25, self._priorities(label))
        weight, numbers = tf.math.top_k(tf.cast(chosen, tf.float32), count)

        regions = tf.gather(candidates, numbers, batch_dims=1)
        matched = tf.gather(matched, numbers, batch_dims=1)
        positive = tf.gather(label, numbers, batch_dims=1) == box.POSITIVE
        kind = tf.where(positive, 1 + tf.cast(tf.gather(kinds, matched, batch_dims=1), tf.int32), 0)
        wanted = box.encode(tf.gather(truth, matched, batch_dims=1), regions) / CORRECTION_SCALE
        logits, corrections = self._judge(outputs["features"], regions, training)
        return region_loss(
            logits,
            corrections,
            tf.reshape(kind, [-1]),
            tf.reshape(wanted, [-1, 4]),
            tf.reshape(weight, [-1]),
        )

    def _priorities(self, label: Any) -> Any:
        return keras.random.uniform(tf.shape(label), seed=self.seeds)

    def detect(self, maps: Any, overlap: float = 0.3) -> Any:
        """Storms on maps.

        Args:
            maps: N x rows x columns x channels.
            overlap: intersection over union above which the worse of two of a class goes.

        Returns:
            N x detections x 6: top, left, bottom, right, class and score; class -1 where there are
            no more.
        """
        outputs = self(maps, training=False)
        proposals = outputs["proposals"]
        logits, corrections = self._judge(outputs["features"], proposals, training=False)
        shape = [-1, proposals.shape[1], self.classes]
        scores = tf.reshape(tf.nn.softmax(logits)[:, 1:], shape)
        corrections = tf.reshape(corrections, [*shape, 4]) * CORRECTION_SCALE
        found = box.clip(box.decode(corrections, proposals[:, :, None, :]), self.map_shape)
        return box.suppress_by_class(found, scores, self.sampling.detections, overlap)

    def predict_step(self, data: Any) -> Any:
        """Detections, for `predict`."""
        return self.detect(keras.utils.unpack_x_y_sample_weight(data)[0])


def faster_rcnn_tiny(seed: int | None = None) -> FasterRCNN:
    """For maps of 48x72 pixels."""
    return FasterRCNN(
        residual_backbone((48, 72, 16), (16, 24, 32)),
        sizes=(7, 12, 22),
        ratios=(1.0,),
        width=32,
        crop=4,
        units=64,
        sampling=Sampling(64, 100, 24, 16, 20),
        seed=seed,
    )


def faster_rcnn_reference(seed: int | None = None) -> FasterRCNN:
    """ResNet-50, for maps of 768x1152 pixels."""
    sizes = [2.0**power for power in (5, 6, 7, 8, 9)]
    return FasterRCNN(resnet50_backbone((768, 1152, 16)), sizes=sizes, seed=seed)
