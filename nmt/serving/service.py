"""What the server knows of translating: requests checked, models applied, answers made."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nmt.decoding.options import DecodingOptions
from nmt.subwords import Subwords
from nmt.text import refused_character
from nmt.translation import words
from nmt.translation.models import Models
from tfkfac.errors import InputError, unknown

# Each needs a decoder of its own, which takes seconds to compile and memory to keep.
_KEPT_DECODERS = 8
_DIGITS = 4


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
        size: bytes of a request.
        lines: lines of a request.
        characters: characters of a line.
        beam: hypotheses kept at every step.
    """

    size: int = 1 << 20
    lines: int = 100
    characters: int = 5000
    beam: int = 10


class TooLarge(InputError):
    """A request exceeds a limit."""


@dataclass(frozen=True)
class Request:
    """A request to translate.

    Args:
        lines: of text.
        options: of decoding.
        alignments: whether to return them.
    """

    lines: tuple[str, ...]
    options: DecodingOptions
    alignments: bool

    @classmethod
    def of(cls, content: Any, default: DecodingOptions, limits: Limits) -> Request:
        """A request out of its JSON: text, and perhaps beam, n_best and alignments.

        Raises:
            TooLarge: if it exceeds a limit.
            InputError: if it is wrong; the message names the key.
        """
        if not isinstance(content, dict):
            raise InputError('expected a JSON object such as {"text": ["A sentence."]}')
        known = ("text", "beam", "n_best", "alignments")
        for key in content:
            if key not in known:
                raise unknown("key", key, known, "request")
        if "text" not in content:
            raise InputError("text: missing; give a line or a list of lines")
        alignments = content.get("alignments", False)
        if not isinstance(alignments, bool):
            raise InputError(f"alignments: expected true or false, got {alignments!r}")
        given = {name: content[name] for name in ("beam", "n_best") if name in content}
        if "beam" in given and "n_best" not in given and isinstance(given["beam"], int):
            given["n_best"] = max(1, min(default.n_best, given["beam"]))
        options = dataclasses.replace(default, **given)
        if options.beam > limits.beam:
            raise TooLarge(f"beam: {options.beam} is more than {limits.beam} allowed")
        return cls(_lines(content["text"], limits), options, alignments)


def _lines(text: Any, limits: Limits) -> tuple[str, ...]:
    lines = [text] if isinstance(text, str) else text
    if not isinstance(lines, list):
        raise InputError("text: expected a line or a list of lines")
    if len(lines) > limits.lines:
        raise TooLarge(f"text: {len(lines):,} lines are more than {limits.lines:,} allowed")
    for place, line in enumerate(lines):
        where = "text" if line is text else f"text[{place}]"
        if not isinstance(line, str):
            raise InputError(f"{where}: expected text, got {type(line).__name__}")
        if len(line) > limits.characters:
            raise TooLarge(
                f"{where}: {len(line):,} characters are more than {limits.characters:,} allowed"
            )
        refused = refused_character(line)
        if refused:
            hint = "; give a list of lines" if "\n" in line else ""
            raise InputError(f"{where}: {refused}{hint}")
    return tuple(lines)


class Service:
    """Translates requests with loaded models.

    It is for one thread alone.

    Args:
        chosen: the models; loaded when the service is made.
        default: options of decoding.
    """

    def __init__(self, chosen: Models, default: DecodingOptions) -> None:
        self._chosen, self._default = chosen, default
        self._loaded = chosen.load()
        self._translators: OrderedDict[DecodingOptions, Any] = OrderedDict()

    def warm_up(self) -> None:
        """Compiles what a request without options needs."""
        self.translate(self._default, ["."])

    def translate(self, options: DecodingOptions, lines: Sequence[str]) -> list[Any]:
        """The `nmt.translation.translator.Translation` of each line, with attention."""
        return self._translator(options)(lines)

    def _translator(self, options: DecodingOptions) -> Any:
        from nmt.translation.translator import Translator  # TensorFlow

        if options not in self._translators:
            self._translators[options] = Translator(
                self._loaded,
                self._chosen.source,
                self._chosen.target,
                dataclasses.replace(options, attention=True),
                self._chosen.options.batch_size,
                self._chosen.max_source,
            )
        self._translators.move_to_end(options)
        if len(self._translators) > _KEPT_DECODERS:
            self._translators.popitem(last=False)
        return self._translators[options]


def answer(request: Request, found: Sequence[Any], source: Subwords, target: Subwords) -> Any:
    """The JSON of translations: a list with an object for each line."""
    results = []
    for line, translation in zip(request.lines, found, strict=True):
        hypotheses = []
        for hypothesis in translation.hypotheses:
            content: dict[str, Any] = {
                "text": hypothesis.text,
                "score": round(hypothesis.score, _DIGITS),
                "log_probability": round(hypothesis.log_probability, _DIGITS),
            }
            if request.alignments:
                sides = (
                    words.words(source, translation.source_ids),
                    words.words(target, hypothesis.ids),
                )
                weights = words.attention(*sides, hypothesis.attention)
                content["alignment"] = {
                    "source": [word.text for word in sides[0]],
                    "target": [word.text for word in sides[1]],
                    "attention": weights.round(_DIGITS).tolist(),
                }
            hypotheses.append(content)
        results.append({"source": line, "cut": translation.cut, "translations": hypotheses})
    return results
