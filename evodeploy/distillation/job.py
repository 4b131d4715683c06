"""One distillation: teacher, evaluation before, training, evaluation after."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from evodeploy.distillation import setup
from evodeploy.distillation.data import Pictures
from evodeploy.distillation.evaluation import Probe, quality
from evodeploy.distillation.loop import Loop
from evodeploy.distillation.losses import Objective, spread_of
from evodeploy.distillation.network import Answers, average_of, feature_width, trainable
from evodeploy.distillation.processes import Processes
from evodeploy.distillation.recipe import Ratios, Recipe
from evodeploy.distillation.report import Distilled, Level, Quality, Step
from evodeploy.distillation.state import State, read_state, write_state
from evodeploy.distillation.teaching import Teacher, all_answers, computed, remembered
from evodeploy.errors import UsageError
from evodeploy.models.loaded import LoadedModel
from evodeploy.models.network import Network
from evodeploy.text import ratios_in_words

_log = logging.getLogger(__name__)

REMEMBERED = 20_000  # images whose targets are computed once; for more, or with augmentation, in each step
SAMPLE = 2048  # images for the spread of features and the probe, if targets are not computed once


def state_of(part: Path, task: dict[str, object], resume: bool, force: bool) -> State:
    """Return the state of the interrupted training if `resume` is set, or a new one."""
    if not part.exists() or (force and not resume):
        if resume:
            _log.info("there is no %s to resume: the training starts at step 0", part)
        return State(task)
    if not resume:
        raise UsageError(
            f"{part} is an interrupted distillation: pass --resume to continue it, or --force to start over"
        )
    state = read_state(part, task)
    _log.info("resuming after step %d", state.progress.step)
    return state


@dataclass
class Job:
    """Everything that one distillation works with."""

    student: LoadedModel
    teacher: LoadedModel
    recipe: Recipe
    pictures: Pictures
    held: Pictures
    device: torch.device
    processes: Processes
    state: State

    def done(self, output: Path, part: Path, progress: Callable[[Step], None] | None) -> tuple[Network, Distilled]:
        """Train; return the averaged weights on the CPU, and the record of their quality."""
        clock = time.perf_counter()
        recipe, info = self.recipe, self.student.info
        master = self.teacher.module.to(self.device)
        asking = f"computing the outputs of the teacher, {self.teacher.config.name}"
        _log.info(asking)
        known = self._answers(asking, master, self.held)
        once = not recipe.augment and len(self.pictures) <= REMEMBERED
        listing = self.pictures.listing
        with contextlib.closing(Pictures(listing.limited(SAMPLE), info)) as sample:
            asked = self.pictures if once else sample
            targets, labels = self._answers(asking, master, asked), _labels(asked)
        probe = None if labels is None or info.num_classes else Probe.fitted(targets.features, labels)
        network = trainable(self.student.module).to(self.device)
        average = average_of(network)
        labels = _labels(self.held)
        if not self.state.before:
            found = self._qualities("evaluating before training", average, known, labels, probe)
            self.state.before = [dataclasses.asdict(each) for each in found]
        before = [Quality.from_dict(each) for each in self.state.before]
        comparable = feature_width(self.student.config) == feature_width(self.teacher.config)
        spread = spread_of(targets.features).to(self.device) if comparable else None
        objective = Objective(spread, recipe.temperature, recipe.label_weight)
        teaching: Teacher = remembered(targets, self.device) if once else computed(master)
        loop = Loop(
            network, average, teaching, self.pictures, info.preprocessing, recipe, objective, self.device,
            self.processes, self.state,
        )  # fmt: skip
        spent = time.perf_counter() - clock
        _log.info("training: %s", recipe.in_words())
        loop.run(lambda state: write_state(state, part), progress)
        clock = time.perf_counter()
        after = self._qualities("evaluating after training", average, known, labels, probe)
        levels = tuple(map(Level, recipe.tried(), before, after))
        done = self.state.progress
        record = Distilled(
            output, self.student.config.name, setup.checksum(self.teacher), _compared(info.num_classes, probe), recipe,
            quality(known, known, labels, probe), levels, len(self.pictures), len(self.held), done.step, done.images,
            done.seconds, spent + time.perf_counter() - clock, self.processes.rank,
        )  # fmt: skip
        _warn_of_loss(record)
        return average.cpu(), record

    def _answers(self, doing: str, network: Network, pictures: Pictures, ratios: Ratios | None = None) -> Answers:
        how, precision = self.student.info.preprocessing, self.recipe.precision
        return all_answers(network, pictures, ratios, how, self.device, self.processes, precision, doing)

    def _qualities(
        self, doing: str, network: Network, known: Answers, labels: torch.Tensor | None, probe: Probe | None
    ) -> list[Quality]:
        _log.info(doing)
        found = []
        for ratios in self.recipe.tried():
            at = f"{doing}, at keep ratio {ratios_in_words(ratios)}"
            found.append(quality(self._answers(at, network, self.held, ratios), known, labels, probe))
        return found


def _warn_of_loss(record: Distilled) -> None:
    """Log a warning if agreement fell at the lowest keep ratio, which has the most to regain."""
    lowest = record.levels[-1]
    was, now = lowest.before.agreement, lowest.after.agreement
    if now.value < was.value:
        at = f"at keep ratio {ratios_in_words(lowest.keep_ratios)} agreement fell from {was} to {now}"
        _log.warning(
            "%s in %d steps: train longer, because the first steps lose some agreement, or lower --rate",
            at,
            record.steps,
        )


def _labels(pictures: Pictures) -> torch.Tensor | None:
    labels = pictures.listing.labels
    return None if labels is None else torch.tensor(labels)


def _compared(classes: int, probe: Probe | None) -> str:
    if classes:
        return "agreement is the share of images with the teacher's class"
    if probe is not None:
        return (
            "agreement is the share of images with the teacher's class, read by a linear probe of the "
            "teacher's features"
        )
    return "agreement is 1 for the teacher's features, 0 for those of any other image"
