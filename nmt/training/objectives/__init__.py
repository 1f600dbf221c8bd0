"""Objectives: what a batch contributes to the loss.

A new objective is a class with the interface of `Objective` and a line in `OBJECTIVES`. How its
terms are averaged, over a batch and over ranks, is none of its business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nmt.config import Loss
from nmt.models import TranslationModel
from nmt.training.objectives.interface import Batch, Objective, Term
from nmt.training.objectives.maximum_likelihood import MaximumLikelihood, word_loss
from nmt.training.objectives.scheduled_sampling import ScheduledSampling
from nmt.training.objectives.soft_alignment import SampledLikelihood

__all__ = ["OBJECTIVES", "Batch", "Objective", "Term", "build", "word_loss"]

OBJECTIVES: dict[str, Callable[[TranslationModel, Loss], Objective]] = {
    "mle": MaximumLikelihood,
    "scheduled-sampling": ScheduledSampling,
    "differentiable-scheduled-sampling": partial(ScheduledSampling, differentiable=True),
    "saml": SampledLikelihood,
    "saml-hard": partial(SampledLikelihood, hard_alignment=True),
}


def build(model: TranslationModel, options: Loss) -> Objective:
    """The configured objective for a model."""
    return OBJECTIVES[options.objective](model, options)
