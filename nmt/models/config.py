"""The sizes and choices that make up a translation model, checked without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfkfac.errors import InputError, unknown

ARCHITECTURES = ("transformer", "rnn")
TIED_EMBEDDINGS = ("none", "decoder", "all")
POSITIONS = ("sinusoidal", "learned")
ATTENTIONS = ("additive", "dot")
INITIAL_STATES = ("zero", "mean", "last")


@dataclass(frozen=True)
class ModelConfig:
    """What a translation model is made of. The defaults are a small Transformer.

    Both architectures:

    Args:
        architecture: `"transformer"` or `"rnn"` (attentional recurrent network).
        source_vocabulary: number of source subwords, special ones included.
        target_vocabulary: number of target subwords, special ones included.
        embedding_size: size of a word embedding; the Transformer is this wide throughout.
        encoder_layers: encoder layers.
        decoder_layers: decoder layers.
        tied_embeddings: which matrices are one: `"none"`; `"decoder"`, target embedding and output
            layer; `"all"`, source embedding, target embedding and output layer (both
            vocabularies must be the same).
        dropout: share of values dropped from embeddings and from the output of every layer.

    The Transformer alone:

    Args:
        heads: attention heads, a divisor of `embedding_size`.
        feed_forward_size: units between the two maps of a feed-forward layer.
        positions: `"sinusoidal"` (fixed, any length) or `"learned"`.
        max_positions: longest sequence, END included, that learned positions cover.
        attention_dropout: share of attention weights dropped.
        feed_forward_dropout: share of units dropped inside a feed-forward layer.

    The recurrent network alone:

    Args:
        encoder_units: LSTM units of each direction of an encoder layer.
        decoder_units: LSTM units of a decoder layer.
        output_size: size of the attentional vector, which is fed back and mapped to the
            vocabulary; None for `decoder_units`, or `embedding_size` where the output layer is
            tied.
        attention: `"additive"` (Bahdanau et al., 2015) or `"dot"` (Luong et al., 2015, "general").
        attention_size: units of additive attention; None for `decoder_units`.
        input_feeding: feed the attentional vector back into the decoder (Luong et al., sec. 3.3).
        initial_state: what the decoder starts from: `"zero"`, a learned map of the `"mean"` of the
            annotations, or of the `"last"` annotation of each direction.
        layer_normalization: normalise the gates of all LSTMs (Ba et al., 2016).
        recurrent_dropout: share of the decoder's recurrent state dropped, the same units at every
            step of a sentence (Gal and Ghahramani, 2016).

    Raises:
        InputError: a value is out of range, or two do not go together.
    """

    source_vocabulary: int
    target_vocabulary: int
    architecture: str = "transformer"
    embedding_size: int = 256
    encoder_layers: int = 3
    decoder_layers: int = 3
    tied_embeddings: str = "none"
    dropout: float = 0.1
    heads: int = 4
    feed_forward_size: int = 1024
    positions: str = "sinusoidal"
    max_positions: int = 512
    attention_dropout: float = 0.0
    feed_forward_dropout: float = 0.0
    encoder_units: int = 256
    decoder_units: int = 512
    output_size: int | None = None
    attention: str = "additive"
    attention_size: int | None = None
    input_feeding: bool = True
    initial_state: str = "mean"
    layer_normalization: bool = False
    recurrent_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("architecture", self.architecture, ARCHITECTURES)
        _check_choice("tied_embeddings", self.tied_embeddings, TIED_EMBEDDINGS)
        _check_choice("positions", self.positions, POSITIONS)
        _check_choice("attention", self.attention, ATTENTIONS)
        _check_choice("initial_state", self.initial_state, INITIAL_STATES)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "bool" and not isinstance(value, bool):
                raise InputError(f"{field.name}: expected true or false, got {value!r}")
            if field.type in ("int", "int | None"):
                _check_size(field.name, value, optional="None" in str(field.type))
            if field.type == "float" and not (_is_number(value) and 0 <= value < 1):
                raise InputError(f"{field.name}: expected a share in [0, 1), got {value!r}")
        for name in ("source_vocabulary", "target_vocabulary"):
            if getattr(self, name) < 4:
                raise InputError(
                    f"{name}: {getattr(self, name)} subwords do not hold the four special ones"
                )
        if self.tied_embeddings == "all" and self.source_vocabulary != self.target_vocabulary:
            raise InputError(
                "tied_embeddings: all needs one vocabulary, but there are "
                f"{self.source_vocabulary} source and {self.target_vocabulary} target subwords"
            )
        if self.architecture == "transformer" and self.embedding_size % self.heads:
            raise InputError(
                f"heads: {self.heads} does not divide embedding_size {self.embedding_size}"
            )
        tied = self.architecture == "rnn" and self.tied_embeddings != "none"
        if tied and self.output_size not in (None, self.embedding_size):
            raise InputError(
                f"output_size: {self.output_size} differs from embedding_size "
                f"{self.embedding_size}, to which tied_embeddings ties it"
            )

    def to_dict(self) -> dict[str, Any]:
        """The options by name, ready for YAML or JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`; what is left out gets its default.

        Raises:
            InputError: an option is unknown, or its value is wrong.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in options:
            if name not in names:
                raise unknown("option", name, names, "model")
        for name in ("source_vocabulary", "target_vocabulary"):
            if name not in options:
                raise InputError(f"model: {name} is missing")
        return cls(**options)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise unknown("value", str(value), choices, name)


def _check_size(name: str, value: Any, optional: bool) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: expected a whole number above 0, got {value!r}")
