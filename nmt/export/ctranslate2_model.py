"""A Transformer as a model of CTranslate2, whose decoder quantises and needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctranslate2
import keras
import numpy as np
import tensorflow as tf

from nmt.models.attention import CrossAttention, SelfAttention
from nmt.models.embeddings import Positions
from nmt.models.transformer import DecoderLayer, FeedForward, Transformer
from nmt.subwords import BEGIN, END, PAD, UNKNOWN, Subwords

# exp() of it is 0 in every precision, and half precision holds it.
_NEVER = -1e4


def save(
    model: Transformer,
    source: Subwords,
    target: Subwords,
    path: Path,
    *,
    positions: int,
    quantization: str = "float32",
    allow_unknown: bool = False,
) -> None:
    """Writes the directory of a CTranslate2 model.

    It reads and writes SentencePiece's pieces and adds END to the source by itself. PAD and BEGIN,
    and UNKNOWN unless it is allowed, have no probability, so that no option is needed to keep
    CTranslate2 from writing them.

    Args:
        model: with its weights.
        source, target: its subwords.
        path: the directory to be made.
        positions: length of the longest sentence, END included, on either side.
        quantization: of matrices and embeddings, one of CTranslate2's.
        allow_unknown: whether the unknown subword may be written.
    """
    config = model.config
    spec = ctranslate2.specs.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.heads,
        alignment_layer=model.reported_layer,
        alignment_heads=0,  # the mean of all
    )
    _set_embedding(spec.encoder.embeddings[0], model.source_embedding)
    _set_embedding(spec.decoder.embeddings, model.target_embedding)
    spec.encoder.scale_embeddings = float(model.source_embedding.scale)
    spec.decoder.scale_embeddings = float(model.target_embedding.scale)
    spec.encoder.position_encodings.encodings = _table(model.source_positions, positions)
    spec.decoder.position_encodings.encodings = _table(model.target_positions, positions)
    for layer_spec, layer in zip(spec.encoder.layer, model.encoder_layers, strict=True):
        _set_self_attention(layer_spec.self_attention, layer)
        _set_feed_forward(layer_spec.ffn, layer.feed_forward_norm, layer.feed_forward)
    for layer_spec, layer in zip(spec.decoder.layer, model.decoder_layers, strict=True):
        _set_self_attention(layer_spec.self_attention, layer)
        _set_source_attention(layer_spec.attention, layer)
        _set_feed_forward(layer_spec.ffn, layer.feed_forward_norm, layer.feed_forward)
    _set_norm(spec.encoder.layer_norm, model.encoder_norm)
    _set_norm(spec.decoder.layer_norm, model.decoder_norm)
    _set_output(spec.decoder.projection, model, allow_unknown)

    pieces = target.pieces(range(len(target)))
    spec.register_source_vocabulary(source.pieces(range(len(source))))
    spec.register_target_vocabulary(pieces)
    spec.config.unk_token = pieces[UNKNOWN]
    spec.config.bos_token = spec.config.decoder_start_token = pieces[BEGIN]
    spec.config.eos_token = pieces[END]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = model.encoder_norm.epsilon
    spec.validate()
    spec.optimize(quantization)
    path.mkdir()
    spec.save(str(path))


def _array(weight: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(weight), np.float32)


def _set_linear(spec: Any, layer: keras.layers.Dense) -> None:
    spec.weight = np.ascontiguousarray(_array(layer.kernel).T)  # [outputs, inputs]
    spec.bias = _array(layer.bias)


def _set_norm(spec: Any, layer: keras.layers.LayerNormalization) -> None:
    spec.gamma, spec.beta = _array(layer.gamma), _array(layer.beta)


def _set_embedding(spec: Any, layer: Any) -> None:
    spec.weight = _array(layer.embeddings)


def _table(layer: Positions, positions: int) -> np.ndarray:
    """[positions, size]"""
    return _array(layer(tf.range(positions)))


def _set_self_attention(spec: Any, layer: Any) -> None:
    attention: SelfAttention = layer.attention
    _set_norm(spec.layer_norm, layer.attention_norm)
    _set_linear(spec.linear[0], attention.query_key_value)
    _set_linear(spec.linear[1], attention.merge)


def _set_source_attention(spec: Any, layer: DecoderLayer) -> None:
    attention: CrossAttention = layer.source_attention
    _set_norm(spec.layer_norm, layer.source_norm)
    _set_linear(spec.linear[0], attention.query)
    _set_linear(spec.linear[1], attention.key_value)
    _set_linear(spec.linear[2], attention.merge)


def _set_feed_forward(spec: Any, norm: Any, layer: FeedForward) -> None:
    _set_norm(spec.layer_norm, norm)
    _set_linear(spec.linear_0, layer.inner)
    _set_linear(spec.linear_1, layer.outer)


def _set_output(spec: Any, model: Transformer, allow_unknown: bool) -> None:
    layer = model.output_layer
    if layer.tied:
        spec.weight = _array(model.target_embedding.embeddings)
    else:
        spec.weight = np.ascontiguousarray(_array(layer.kernel).T)
    bias = _array(layer.bias)
    bias[[PAD, BEGIN] if allow_unknown else [PAD, BEGIN, UNKNOWN]] = _NEVER
    spec.bias = bias
