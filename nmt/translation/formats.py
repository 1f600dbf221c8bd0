"""Translations as lines of output: a class for each format."""

from __future__ import annotations

import json
from typing import Any, Protocol

from nmt.subwords import Subwords
from nmt.translation import words
from nmt.translation.translator import Hypothesis, Translation

# Digits behind the point: more would differ with the order of additions.
_DIGITS = 4


class Format(Protocol):
    """What is written for a line of input."""

    def lines(self, number: int, source: str, translation: Translation) -> list[str]:
        """The lines of output.

        Args:
            number: of the input line, counted from 0.
            source: the line.
            translation: its translations; none for a blank line.
        """
        ...


class Text:
    """The best translation alone; a blank line for a blank line."""

    def lines(self, number: int, source: str, translation: Translation) -> list[str]:
        """See `Format`."""
        return [translation.text]


class NBest:
    """Each translation with the number of the line and its score: `0 ||| Good day. ||| -0.5123`.

    A blank line has one empty translation.
    """

    def lines(self, number: int, source: str, translation: Translation) -> list[str]:
        """See `Format`."""
        if not translation.hypotheses:
            return [f"{number} |||  ||| {0:.{_DIGITS}f}"]
        return [
            f"{number} ||| {hypothesis.text} ||| {hypothesis.score:.{_DIGITS}f}"
            for hypothesis in translation.hypotheses
        ]


class JSONLines:
    """One JSON object a line: the source, and its translations with their scores.

    Args:
        target: the target language's subwords.
        word_scores: whether each translation lists its words with their log-probabilities, and
            that of its end.
    """

    def __init__(self, target: Subwords, word_scores: bool) -> None:
        self._target, self._word_scores = target, word_scores

    def lines(self, number: int, source: str, translation: Translation) -> list[str]:
        """See `Format`."""
        translations = [self._object(hypothesis) for hypothesis in translation.hypotheses]
        content = {"line": number, "source": source, "translations": translations}
        return [json.dumps(content, ensure_ascii=False)]

    def _object(self, hypothesis: Hypothesis) -> dict[str, Any]:
        result: dict[str, Any] = {
            "text": hypothesis.text,
            "score": round(hypothesis.score, _DIGITS),
            "log_probability": round(hypothesis.log_probability, _DIGITS),
        }
        if self._word_scores:
            found = words.words(self._target, hypothesis.ids)
            scores = words.scores(found, hypothesis.log_probabilities)
            result["words"] = [
                [word.text, round(score, _DIGITS)]
                for word, score in zip(found, scores, strict=True)
            ]
            result["end"] = round(hypothesis.log_probabilities[-1], _DIGITS)
        return result
