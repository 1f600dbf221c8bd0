"""Scores of translations, as sacreBLEU computes them: on plain text, with a signature each."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfkfac.errors import InputError, unknown

METRICS = ("bleu", "chrf", "chrf++", "ter")
DEFAULT_METRICS = ("bleu", "chrf")
# Those that work without a download; the last two want packages of their own.
TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab")
NAMES = {"bleu": "BLEU", "chrf": "chrF", "chrf++": "chrF++", "ter": "TER"}


@dataclass(frozen=True)
class Score:
    """The score of one system.

    Args:
        metric: "BLEU", "chrF", "chrF++" or "TER".
        value: from 0 to 100; of TER, less is better, and it may exceed 100.
        signature: sacreBLEU's: case, tokenisation, smoothing, version.
        mean, interval: over bootstrap samples: mean, and half the width of the 95 % interval.
        p_value: of the difference to the first system.
    """

    metric: str
    value: float
    signature: str
    mean: float | None = None
    interval: float | None = None
    p_value: float | None = None


def scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    lowercase: bool = False,
    tokenizer: str = "13a",
) -> list[Score]:
    """Scores a system's translations.

    Args:
        hypotheses: detokenised translations, one for each line.
        references: one or more sets of reference translations, each as long as `hypotheses`.
        metrics: out of `METRICS`.
        lowercase: ignore case.
        tokenizer: out of `TOKENIZERS`, by which BLEU splits words; the default is WMT's.

    Raises:
        InputError: if there is nothing to score, or the numbers of lines differ.
    """
    _check([hypotheses], references)
    result = []
    for name, metric in _metrics(metrics, lowercase, tokenizer).items():
        with _sacrebleu_says():
            value = metric.corpus_score(hypotheses, references).score
        result.append(Score(name, value, str(metric.get_signature())))
    return result


def compare(
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = DEFAULT_METRICS,
    lowercase: bool = False,
    tokenizer: str = "13a",
    samples: int = 1000,
) -> list[list[Score]]:
    """Scores systems and tests each but the first against the first, by paired bootstrap.

    A p-value is the probability of a difference at least as great if both systems were equally
    good (Koehn 2004, "Statistical significance tests for machine translation evaluation").

    Args:
        systems: their hypotheses; the first is the baseline.
        references, metrics, lowercase, tokenizer: as for `scores`.
        samples: test sets that are drawn, by sacreBLEU's seed.

    Returns:
        The scores of each system.

    Raises:
        InputError: as `scores` does, or if there is nothing to compare.
    """
    if len(systems) < 2:
        raise InputError("a significance test needs two hypotheses at least")
    _check(systems, references)
    seed = os.environ.get("SACREBLEU_SEED", "1")
    if seed.lower() != "none" and not (seed.isdecimal() and int(seed) > 0):
        raise InputError(f"SACREBLEU_SEED: expected a whole number above 0 or none, not {seed!r}")
    from sacrebleu.significance import PairedTest

    chosen = _metrics(metrics, lowercase, tokenizer)
    result: list[list[Score]] = [[] for _ in systems]
    named = [(str(number), system) for number, system in enumerate(systems)]
    for name, metric in chosen.items():
        with _sacrebleu_says():
            test = PairedTest(named, {name: metric}, references, "bs", n_samples=samples)
            signatures, columns = test()
        ((key, signature),) = signatures.items()
        for row, found in zip(result, columns[key], strict=True):
            # sacreBLEU counts differences greater than the one observed, and finds none for
            # systems that are equal; a difference of at least zero is certain.
            equal = row is not result[0] and found.score == columns[key][0].score
            p_value = 1.0 if equal else found.p_value
            estimates = (float(found.score), float(found.mean), float(found.ci))
            row.append(Score(name, estimates[0], str(signature), *estimates[1:], p_value))
    return result


def _check(systems: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> None:
    lengths = [len(lines) for lines in (*systems, *references)]
    if not references or 0 in lengths:
        raise InputError("there is nothing to score")
    if len(set(lengths)) > 1:
        counts = " and ".join(f"{length:,}" for length in sorted(set(lengths)))
        raise InputError(f"hypotheses and references have {counts} lines")


def _metrics(metrics: Sequence[str], lowercase: bool, tokenizer: str) -> dict[str, Any]:
    """sacreBLEU's metrics by our names."""
    from sacrebleu.metrics import BLEU, CHRF, TER

    if tokenizer not in TOKENIZERS:
        raise unknown("tokenizer", tokenizer, TOKENIZERS, "BLEU")
    result: dict[str, Any] = {}
    for name in metrics:
        if name == "bleu":
            try:
                result[NAMES[name]] = BLEU(lowercase=lowercase, tokenize=tokenizer)
            except (ImportError, RuntimeError) as error:
                raise InputError(
                    f"BLEU: tokenizer {tokenizer} needs a package that is not installed: "
                    f'pip install "sacrebleu[{tokenizer[:2]}]"'
                ) from error
        elif name in ("chrf", "chrf++"):
            word_order = 2 if name == "chrf++" else 0
            result[NAMES[name]] = CHRF(lowercase=lowercase, word_order=word_order)
        elif name == "ter":
            result[NAMES[name]] = TER(case_sensitive=not lowercase)
        else:
            raise unknown("metric", name, METRICS, "metrics")
    return result


@contextlib.contextmanager
def _sacrebleu_says() -> Iterator[None]:
    """Keeps sacreBLEU's notes on its progress, but not its warnings, from standard error."""
    logger = logging.getLogger("sacrebleu")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
