"""The training loop: each step draws images and keep ratios, compares student and teacher, and updates the weights."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from evodeploy.distillation import draws
from evodeploy.distillation.augmentation import NUMBERS
from evodeploy.distillation.data import Pictures, Pixels
from evodeploy.distillation.losses import Objective, agreement
from evodeploy.distillation.memory import in_parts
from evodeploy.distillation.network import answers, follow, reduced
from evodeploy.distillation.optimizer import Optimizer
from evodeploy.distillation.processes import Processes
from evodeploy.distillation.recipe import Ratios, Recipe
from evodeploy.distillation.report import LOG_EVERY, Step
from evodeploy.distillation.state import State
from evodeploy.distillation.teaching import Teacher, tensor_of
from evodeploy.errors import RuntimeFailedError
from evodeploy.models.network import Network
from evodeploy.specs import Preprocessing

SAVE_EVERY = 60.0  # seconds
SMOOTH = 0.9  # the weight of earlier steps in the reported loss

_log = logging.getLogger(__name__)


@dataclass
class Loop:
    """One training: its inputs, and the objects that it changes (`student`, `average`, `state`)."""

    student: Network
    average: Network
    teacher: Teacher
    pictures: Pictures
    preprocessing: Preprocessing
    recipe: Recipe
    objective: Objective
    device: torch.device
    processes: Processes
    state: State

    def __post_init__(self) -> None:
        """Begin, or resume from the state's tensors."""
        self._optimizer = Optimizer(self.student, self.recipe, self.device)
        if self.state.tensors:
            self.student.load_state_dict(self.state.tensors["student"])
            self.average.load_state_dict(self.state.tensors["average"])
            self._optimizer.restore(self.state.tensors["optimizer"])
            self.state.tensors = {}
        labels = self.pictures.listing.labels
        self._labels = None if labels is None else torch.tensor(labels)
        self._batch = min(self.recipe.batch, len(self.pictures))
        progress = self.state.progress
        progress.micro_batch = min(progress.micro_batch or self.recipe.micro_batch, self.recipe.micro_batch)

    def run(self, save: Callable[[State], None], on_step: Callable[[Step], None] | None = None) -> None:
        """Train to the end. `save` is called from time to time with the state that is needed to resume.

        Raises RuntimeFailedError if the loss is not finite, OutOfMemoryError if a single image does not fit in memory.
        """
        saved = logged = time.perf_counter()
        first = self.state.progress.step
        reading = self.pictures.in_turn(self._own(step)[0] for step in itertools.count(first))
        while self._done() < 1:
            began = time.perf_counter()
            self._advance(next(reading), began)
            now = time.perf_counter()
            step = self._step()
            if on_step is not None:
                on_step(step)
            if now - logged >= LOG_EVERY:
                logged = now
                _log.info("%s", step)
            if self.processes.leads and now - saved >= SAVE_EVERY:
                self._save(save)
                saved = time.perf_counter()
        if self.processes.leads:
            self._save(save)

    def _save(self, save: Callable[[State], None]) -> None:
        tensors = {"student": self.student.state_dict(), "average": self.average.state_dict()}
        self.state.tensors = tensors | {"optimizer": self._optimizer.state()}
        save(self.state)
        self.state.tensors = {}

    def _done(self) -> float:
        """Return the completed share of the training."""
        progress, recipe = self.state.progress, self.recipe
        if recipe.minutes is not None:
            return progress.seconds / (60 * recipe.minutes)
        assert recipe.epochs is not None  # either minutes or epochs are given
        return progress.step / math.ceil(recipe.epochs * len(self.pictures) / self._batch)

    def _step(self) -> Step:
        progress, done = self.state.progress, self._done()
        left = 0.0 if done >= 1 else progress.seconds * (1 - done) / done
        rate = progress.images / progress.seconds
        return Step(progress.step, min(1.0, done), progress.loss, progress.agreement, rate, progress.seconds, left)

    def _own(self, step: int) -> tuple[list[int], list[int]]:
        """Return this process's share of a step: the indices of its images, and their places in the step."""
        indices = draws.pictures(self.recipe, step, self._batch, len(self.pictures))
        places = [*self.processes.share(range(self._batch))]
        return [indices[place] for place in places], places

    def _advance(self, pixels: Pixels, began: float) -> None:
        """Do one step on this process's `pixels`; if memory runs out, compute it again in smaller parts."""
        progress = self.state.progress
        done = self._done()
        sums, progress.micro_batch = in_parts(partial(self._gradients, pixels), progress.micro_batch, self.device)
        spent = time.perf_counter() - began if self.processes.leads else 0.0
        numbers = torch.tensor([*sums, len(pixels), spent], dtype=torch.float64, device=self.device)
        try:
            loss, agreed, images, seconds = self._optimizer.step(done, self.processes, numbers).tolist()
        except FloatingPointError as error:
            raise RuntimeFailedError(
                f"the training diverged in step {progress.step + 1}: {error}. The learning rate {self.recipe.rate:g} "
                f"is too high, or {self.recipe.precision} too narrow: give a lower rate, or the precision fp32"
            ) from error
        follow(self.average, self.student, min(self.recipe.average, (1 + progress.step) / (10 + progress.step)))
        keep = SMOOTH if progress.step else 0.0
        progress.loss = keep * progress.loss + (1 - keep) * loss / images
        progress.agreement = keep * progress.agreement + (1 - keep) * agreed / images
        progress.step += 1
        progress.images += int(images)
        progress.seconds += seconds

    def _gradients(self, pixels: Pixels, at_once: int) -> tuple[float, float]:
        """Add up the gradients of the step; return the sums of loss and agreement over this process's images."""
        self._optimizer.clear()
        loss_sum, agreed, step = 0.0, 0.0, self.state.progress.step
        ratios = draws.keep_ratios(self.recipe, step)
        numbers = draws.augmentation(self.recipe, step, self._batch, NUMBERS)
        indices, places = self._own(step)
        for begin in range(0, len(indices), at_once):
            chunk = slice(begin, begin + at_once)
            own = None if numbers is None else numbers[places[chunk]]
            images = tensor_of(pixels[chunk], self.preprocessing, self.device, own)
            loss, agrees = self._compared(images, torch.tensor(indices[chunk]), ratios)
            self._optimizer.backward(loss / self._batch)
            loss_sum, agreed = loss_sum + float(loss.detach()), agreed + float(agrees)
        return loss_sum, agreed

    def _compared(self, images: Tensor, positions: Tensor, ratios: Ratios) -> tuple[Tensor, Tensor]:
        """Return the differentiable loss of some images, and the sum of their agreement with the teacher."""
        with reduced(self.recipe.precision, self.device):
            targets = self.teacher(positions, images)
            found = answers(self.student, images, ratios)
        labels = None if self._labels is None else self._labels[positions].to(self.device)
        return self.objective(found, targets, labels), agreement(found, targets, self.objective.spread)
