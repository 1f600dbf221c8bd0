"""The options of decoding, their formulas and their checks, all without TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tfkfac.errors import InputError


@dataclass(frozen=True)
class DecodingOptions:
    """How translations are searched for.

    A hypothesis is a sequence of n words, the last of which is END. Its score is

        score = log P(words | source) / ((offset + n) / (offset + 1)) ^ length_penalty

    with offset = `length_penalty_offset`. Offset 5 gives the penalty of Wu et al. (2016), equation
    14; offset 0 divides by n ^ length_penalty. A `length_penalty` of 0 ranks by log P alone.

    A hypothesis has at most L = `max_length` words, END included, or, where that is None,

        L = floor(max_length_factor * source words) + max_length_constant,

    the source's END included. At word L nothing but END is possible, so that every hypothesis is
    complete and its log P the model's.

    Beam search extends the `beam` best unfinished hypotheses by every word. Of the `beam` best
    extensions (by log P), those that end are finished, kept aside and never extended; the `beam`
    best extensions that do not end go on. A sentence is done when `beam` hypotheses are finished,
    or when no unfinished one can attain a better score than the `n_best` best finished ones, which
    changes nothing in the result.

    PAD and BEGIN are never chosen. Ties go to END, then to the hypothesis that was better before,
    then to the lower id.

    Args:
        beam: hypotheses kept at every step; 1 is greedy.
        n_best: hypotheses returned per sentence, at most `beam`; with `sample`, samples drawn.
        length_penalty: exponent, 0 or above.
        length_penalty_offset: above -1.
        max_length: most words, END included, or None.
        max_length_factor: per source word, where `max_length` is None.
        max_length_constant: added to it.
        min_length: fewest words before END, as far as the longest length lets them be.
        no_repeat_ngram: no sequence of this many words occurs twice in a hypothesis; 0 to allow.
        allow_unknown: whether the unknown subword may be chosen.
        sample: draw each word at random instead of searching.
        temperature: logits are divided by it before sampling.
        top_k: sample among the k most probable words; 0 for all.
        top_p: sample among the fewest most probable words that have this much probability together.
        seed: of the samples; the same seed and sentence number draw the same.
        attention: return attention weights.

    Raises:
        InputError: an option is out of range, or two do not go together.
    """

    beam: int = 5
    n_best: int = 1
    length_penalty: float = 1.0
    length_penalty_offset: float = 5.0
    max_length: int | None = None
    max_length_factor: float = 2.0
    max_length_constant: int = 10
    min_length: int = 0
    no_repeat_ngram: int = 0
    allow_unknown: bool = False
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    attention: bool = False

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST_WHOLE.items():
            value = getattr(self, name)
            if name == "max_length" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise InputError(f"{name}: expected a whole number from {lowest}, got {value!r}")
        _check(self, "length_penalty", lambda value: value >= 0, "0 or above")
        _check(self, "length_penalty_offset", lambda value: value > -1, "a number above -1")
        _check(self, "max_length_factor", lambda value: value >= 0, "0 or above")
        _check(self, "temperature", lambda value: value > 0, "a number above 0")
        _check(self, "top_p", lambda value: 0 < value <= 1, "a share above 0, up to 1")
        if not self.sample and self.n_best > self.beam:
            raise InputError(
                f"n_best: {self.n_best} hypotheses cannot come from a beam of {self.beam}; "
                "raise beam or lower n_best"
            )
        if not self.sample:
            for name, default in (("temperature", 1.0), ("top_k", 0), ("top_p", 1.0)):
                if getattr(self, name) != default:
                    raise InputError(f"{name}: only has a meaning with sample")

    def longest(self, source_words: Any) -> Any:
        """L of sentences with that many words, END included: of a number, or of an array."""
        if self.max_length is not None:
            return source_words * 0 + self.max_length
        scaled = source_words * float(self.max_length_factor)
        return scaled // 1 + self.max_length_constant

    def penalty(self, words: Any) -> Any:
        """What the log-probability of that many words is divided by (a number, or an array)."""
        offset = self.length_penalty_offset
        return ((offset + words) / (offset + 1.0)) ** self.length_penalty


_LOWEST_WHOLE = {
    "beam": 1,
    "n_best": 1,
    "max_length": 1,
    "max_length_constant": 0,
    "min_length": 0,
    "no_repeat_ngram": 0,
    "top_k": 0,
    "seed": 0,
}


def _check(options: DecodingOptions, name: str, valid: Any, expected: str) -> None:
    value = getattr(options, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not valid(value):
        raise InputError(f"{name}: expected {expected}, got {value!r}")
