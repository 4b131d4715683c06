"""`evodeploy.distill`: training a checkpoint on images so that it reproduces its outputs with fewer tokens."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from evodeploy.arguments import checked
from evodeploy.distillation.data import Pictures
from evodeploy.distillation.recipe import EPOCHS, RATES, Recipe, TrainingPrecision
from evodeploy.distillation.report import Distilled, Step
from evodeploy.errors import needs
from evodeploy.files import claimed
from evodeploy.kinds import CHECKPOINT, TRAINING
from evodeploy.specs import FastPath

if TYPE_CHECKING:
    from torch import nn

    Source = str | os.PathLike[str] | nn.Module


@checked
def distill(
    source: Source,
    images: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    keep_ratio: float | Sequence[float] | None = None,
    elastic: tuple[float, float] | None = None,
    stages: Sequence[int] | None = None,
    fast_path: FastPath | None = None,
    image_size: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    val: str | os.PathLike[str] | None = None,
    labels: bool = False,
    class_map: str | os.PathLike[str] | None = None,
    teacher: Source | None = None,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    batch: int = Recipe.batch,
    micro_batch: int | None = None,
    rate: float | None = None,
    augment: bool | None = None,
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Distilled:
    """Train `source` to reproduce the outputs of its dense twin with fewer tokens, on `images`.

    The result is the checkpoint `output`, for one `keep_ratio` (for all stages, or one each), or with `elastic`
    (lowest, highest) for all ratios in that range. `images` and `val` are folders, webdataset tars, Parquet files or
    saved data sets, the same as for `evaluate`. With `labels` the data's classes are used: a classifier also learns
    from them, and accuracies are measured, for a network without a classifier with a linear probe. The file `class_map`
    maps them to the model's classes. The table at the end describes the images of `val`, or else every fifth of
    `images`, which is then not trained on. `teacher` is another network with the same outputs.

    With `resume`, an interrupted training continues from `output`.part, with the same result. On one machine the same
    seed gives the same weights, except with `minutes`, which end by the clock. `progress` is called after each step.

    An image that cannot be read is named in a warning and replaced by the next of its class.

    Raises UsageError if the arguments do not fit each other, the networks or the data, BadFileError if the checkpoint
    or all images of a class cannot be read, RuntimeFailedError if the loss is not finite, OutOfMemoryError if a single
    image does not fit in memory.
    """
    with needs("export"):
        from evodeploy.distillation import setup
        from evodeploy.distillation.job import Job, state_of
        from evodeploy.distillation.processes import device_of, joined
        from evodeploy.models.saving import save_checkpoint
        from evodeploy.models.zoo import with_selection
    path, place = Path(output), device_of(device)
    student = setup.student_of(source, keep_ratio, elastic, stages, fast_path, image_size)
    recipe = Recipe(
        student.config.keep_ratios,
        None if elastic is None else (float(elastic[0]), float(elastic[1])),
        epochs=EPOCHS if epochs is None and minutes is None else epochs,
        minutes=minutes,
        batch=batch,
        micro_batch=batch if micro_batch is None else micro_batch,
        rate=RATES[student.info.fast_path] if rate is None else rate,
        label_weight=1.0 if labels and student.config.num_classes else 0.0,
        precision=cast("TrainingPrecision", precision or setup.usual_precision(place)),
        seed=seed,
    )
    for ratios in recipe.tried():
        with_selection(student.config, ratios)  # raises UsageError for ratios that keep no token
    taught = setup.teacher_of(teacher, student)
    mapping = None if class_map is None else Path(class_map)
    train, held = setup.sides(Path(images), None if val is None else Path(val), student, labels, mapping)
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(joined(place))
        processes.check_shares(min(batch, len(train)))
        stack.enter_context(setup.threads(threads))
        part = path.with_name(f"{path.name}.part")
        if processes.leads:
            files = setup.files_of(source, teacher)
            stack.enter_context(claimed([(path, CHECKPOINT)], force, *files))
            stack.enter_context(claimed([(part, TRAINING)], True, *files))
        pictures = stack.enter_context(contextlib.closing(Pictures(train, student.info)))
        others = stack.enter_context(contextlib.closing(Pictures(held, student.info)))
        recipe = dataclasses.replace(recipe, augment=setup.augments(augment, pictures))
        task = setup.task_of(student, taught, recipe, train, held)
        state = processes.from_leading(lambda: state_of(part, task, resume, force))  # others may not have the folder
        job = Job(student, taught, recipe, pictures, others, place, processes, state)
        weights, record = job.done(path, part, progress)
        if processes.leads:
            save_checkpoint(
                dataclasses.replace(student, module=weights),
                path,
                elastic=recipe.elastic,
                distillation=record.to_dict(),
            )
            part.unlink(missing_ok=True)
    return record
