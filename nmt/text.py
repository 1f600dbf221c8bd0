"""What counts as a line of text: which characters are refused, and what normalising changes."""

from __future__ import annotations

import re
import unicodedata

# Control characters other than the tab, and halves of surrogate pairs, which no UTF-8 file has.
_REFUSED = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
# SentencePiece writes spaces as this character, so that it could not come back as itself.
_SPACE_MARK = "▁"


def refused_character(text: str) -> str | None:
    """The first character that no line may hold, by number and column, or None.

    Refused are control characters except the tab, NUL and line breaks among them, and lone
    surrogates.

    >>> refused_character("nothing wrong")
    >>> refused_character("form" + chr(12) + "feed")
    'control character U+000C at character 5'
    """
    found = _REFUSED.search(text)
    if found is None:
        return None
    kind = "lone surrogate" if found[0] >= "\ud800" else "control character"
    return f"{kind} U+{ord(found[0]):04X} at character {found.start() + 1}"


def normalized(text: str) -> str:
    """The text as subword models see and restore it.

    Characters are composed (Unicode NFC), each run of white space, tabs and non-breaking spaces
    among it, becomes one space, white space at either end goes, and U+2581, which stands for the
    space in SentencePiece's models, becomes an underscore. Normalising twice changes nothing more.
    """
    return " ".join(unicodedata.normalize("NFC", text).replace(_SPACE_MARK, "_").split())


def one_line(text: str) -> str:
    """Generated text without the characters that no line may hold; white space collapsed."""
    return normalized(_REFUSED.sub(" ", text))
