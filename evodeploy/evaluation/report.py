"""The report of an evaluation: from the answers of artefacts to accuracies with confidence intervals."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from evodeploy.datasets.labelled import LabelledImages
from evodeploy.evaluation.contenders import Contender
from evodeploy.evaluation.journal import Answer
from evodeploy.evaluation.statistics import mcnemar, wilson
from evodeploy.text import WIDE, plain, rich_table

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
SIGNIFICANT = 0.05
CONFUSIONS = 10  # pairs of classes reported
SHOWN_CONFUSIONS = 5  # pairs of classes printed


@dataclass(frozen=True)
class Accuracy:
    """A share of images, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, count: int) -> Accuracy:
        """Return the accuracy of `hits` among `count` images."""
        return cls(hits / count if count else 0.0, *wilson(hits, count))

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%}–{self.high:.2%})"


@dataclass(frozen=True)
class Confusion:
    """The number of images of class `label` that were classified as `answer`."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True)
class Score:
    """The results of one artefact. `top5` is None if it outputs fewer classes.

    The rate is that of the engine's warm runs, during which the next images are decoded.
    """

    artefact: str
    engine: str
    precision: str
    top1: Accuracy
    top5: Accuracy | None
    images_per_second: float
    confusions: tuple[Confusion, ...]


@dataclass(frozen=True)
class Difference:
    """The images that only the `first` or only the `second` artefact had right, with an exact McNemar test."""

    first: str
    second: str
    first_only: int
    second_only: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether equally accurate artefacts would differ this much in fewer than one of twenty data sets."""
        return self.p_value < SIGNIFICANT


@dataclass(frozen=True)
class Evaluation:
    """The results of all artefacts on the same `images`. Its text is what `evodeploy eval` shows.

    `broken` are images without an answer, with the reason; they do not count. `note` explains the meaning of labels, if
    an image may have several classes.
    """

    images: int
    broken: tuple[tuple[str, str], ...]
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain values for JSON."""
        return {"schema": SCHEMA} | dataclasses.asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.images} images, with 95 % intervals; img/s of the engine, next to decoding"]
        parts.append(plain(_scores(self), WIDE))
        if self.note:
            parts.insert(1, self.note)
        if self.differences:
            parts.append(plain(_differences(self), WIDE))
        for score in self.scores:
            found = [f"{each.label} for {each.answer} ({each.count})" for each in score.confusions if each.count > 1]
            if found:
                parts.append(f"{score.artefact} most often takes {', '.join(found[:SHOWN_CONFUSIONS])}")
        return "\n\n".join(parts)


def evaluation(data: LabelledImages, answers: Sequence[Answer], contenders: Sequence[Contender]) -> Evaluation:
    """Return the report on the answers of all `contenders` to each image."""
    pairs = list(zip(data.images, answers, strict=True))
    broken = tuple((image.name, answer.error) for image, answer in pairs if answer.error)
    judged = [(image.classes, answer) for image, answer in pairs if not answer.error]
    right = [[answer.ranked[i][0] in classes for classes, answer in judged] for i in range(len(contenders))]
    scores = tuple(
        _score(contender, [(shown, answer.ranked[i]) for shown, answer in judged], sum(a.seconds[i] for _, a in judged))
        for i, contender in enumerate(contenders)
    )
    differences = []
    for (i, first), (j, second) in combinations(enumerate(contenders), 2):
        ours = sum(a and not b for a, b in zip(right[i], right[j], strict=True))
        theirs = sum(b and not a for a, b in zip(right[i], right[j], strict=True))
        differences.append(Difference(first.title, second.title, ours, theirs, mcnemar(ours, theirs)))
    return Evaluation(len(judged), broken, scores, tuple(differences), data.note)


def _score(contender: Contender, judged: Sequence[tuple[Sequence[int], Sequence[int]]], seconds: float) -> Score:
    info = contender.info
    wrong = Counter((classes[0], ranked[0]) for classes, ranked in judged if ranked[0] not in classes)
    top5 = Accuracy.of(sum(not {*classes}.isdisjoint(ranked) for classes, ranked in judged), len(judged))
    return Score(
        artefact=contender.title,
        engine=contender.engine,
        precision=contender.precision,
        top1=Accuracy.of(len(judged) - wrong.total(), len(judged)),
        top5=top5 if (info.top_k or info.num_classes) >= 5 else None,
        images_per_second=len(judged) / seconds if seconds else 0.0,
        confusions=tuple(
            Confusion(info.label(label), info.label(answer), count)
            for (label, answer), count in sorted(wrong.items(), key=lambda each: (-each[1], each[0]))[:CONFUSIONS]
        ),
    )


def _scores(report: Evaluation) -> Table:
    left = ("artefact", "engine", "precision")
    table = rich_table((*left, "top-1", "top-5", "img/s"), left)
    for score in report.scores:
        top5 = "–" if score.top5 is None else str(score.top5)
        rate = f"{score.images_per_second:.1f}"
        table.add_row(score.artefact, score.engine, score.precision, str(score.top1), top5, rate)
    return table


def _differences(report: Evaluation) -> Table:
    """Return a table that compares each artefact with the first."""
    first = report.scores[0].artefact
    against = f"against {first}"
    table = rich_table((against, "right alone", f"{first} alone", "p (McNemar)", "differs significantly"), [against])
    for each in report.differences[: len(report.scores) - 1]:
        differs = "yes" if each.significant else "no"
        table.add_row(each.second, str(each.second_only), str(each.first_only), f"{each.p_value:.2g}", differs)
    return table
