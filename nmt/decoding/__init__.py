"""From source ids to translations: greedy, beam search, sampling, ensembles, scores.

>>> from nmt.decoding import DecodingOptions, decode
>>> hypotheses = decode([model], source, DecodingOptions(beam=5))
>>> hypotheses.ids[0, 0]  # the best translation of the first sentence
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmt.decoding.options import DecodingOptions

if TYPE_CHECKING:
    from nmt.decoding.decoder import Decoder, Hypotheses, decode
    from nmt.decoding.scoring import Scores, score

__all__ = ["Decoder", "DecodingOptions", "Hypotheses", "Scores", "decode", "score"]


def __getattr__(name: str) -> Any:
    # On first use: options are checked without waiting for TensorFlow.
    if name in ("Decoder", "Hypotheses", "decode"):
        from nmt.decoding import decoder

        return getattr(decoder, name)
    if name in ("Scores", "score"):
        from nmt.decoding import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
