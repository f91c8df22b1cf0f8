"""Training a small model from scratch to a folder that the engine loads."""

from __future__ import annotations

from pathlib import Path

from headrace.adapt.batches import Batches
from headrace.adapt.folder import first_weights, settings, spec_of, write_folder
from headrace.adapt.lesson import Draw
from headrace.adapt.recipe import Full, Recipe
from headrace.adapt.train import Report, Run, lesson_loss, work_folder
from headrace.adapt.vocabulary import END_ID, Vocabulary
from headrace.backends.reference.dense import DenseModel
from headrace.model.tokenizer import Tokenizer
from headrace.spec.errors import InvalidRequest


def train_full(recipe: Recipe, draw: Draw, vocabulary: Vocabulary, folder: Path, report: Report | None = None) -> Path:
    """Trains the recipe's model and writes it to `folder`, which appears whole or not at all.

    A checkpoint stands in a folder beside it until then; called again, the run goes on from there.
    Raises InvalidRequest for a recipe of another kind or a model too large; ContextExceeded for a lesson too long.
    """
    if not isinstance(recipe.train, Full):
        raise InvalidRequest(f"Recipe {recipe.name!r} does not train a whole model; give one of kind full.", "train")
    config = settings(recipe.train, vocabulary)
    spec = spec_of(config)
    model = DenseModel(spec, first_weights(spec, recipe.seed))
    tokenizer = Tokenizer(vocabulary.core(), eos=(END_ID,))
    batches = Batches(draw, tokenizer, recipe.batch, recipe.train.context, recipe.seed)
    run = Run(recipe, model.parameters(), lambda step: lesson_loss(model.forward, batches[step]), work_folder(folder))
    run.finish(report)
    return run.publish(folder, lambda ready: write_folder(ready, config, vocabulary, run.weights()))
