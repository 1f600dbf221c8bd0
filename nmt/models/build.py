"""From a configuration to a model with weights."""

from __future__ import annotations

from nmt.models.config import ModelConfig
from nmt.models.interface import TranslationModel


def build_model(config: ModelConfig) -> TranslationModel:
    """A model as configured, its weights made and initialised (`keras.utils.set_random_seed`).

    The global dtype policy decides its precision.
    """
    if config.architecture == "rnn":
        from nmt.models.rnn import RecurrentNetwork

        return RecurrentNetwork(config, name="rnn")
    from nmt.models.transformer import Transformer

    return Transformer(config, name="transformer")
