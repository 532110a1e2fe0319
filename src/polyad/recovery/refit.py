"""Every layer fitted again, from input to output, to what it really sees: asymmetric reconstruction.

The factors were fitted on inputs of the original network. Teacher and student now run side by side over the calibration
inputs. When the student arrives at a site the factors there, from where they are, are refined to give what the teacher
gives at that site, on the inputs that the student has by now; so each layer repairs part of what the layers before it
did wrong (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016,
section 3.3). The bias, or the batch norm behind, takes up the mean. A refit is kept where the error of the site's
output falls on held-out inputs, and all of them where the held-out divergence from the teacher does not rise.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from polyad.decompositions.base import FORMS
from polyad.evaluation import divergence, outputs
from polyad.lockstep import Meeting, walk
from polyad.metrics.propagated import best_shift, output_error, propagated_norm, propagated_target
from polyad.pairs import pairs_of
from polyad.records import Choice, Pairs
from polyad.recovery.base import RECOVERIES, Lesson, Recovery
from polyad.sites import weight_of
from polyad.solvers import Problem, fit
from polyad.splits import merged

ELEMENTS = 1 << 27
"""Largest activation of all calibration inputs together, in elements (512 MiB of float32)."""

STEPS = 30
"""L-BFGS iterations of a refit."""

SWEEPS = 1
"""How often all sites are gone through."""


def refit(lesson: Lesson) -> tuple[str, ...]:
    """Refit the student's sites in order; returns what was kept."""
    choices, left = _choices(lesson)
    if not choices:
        return (f"refit: nothing to refit{left}",)
    targets = outputs(lesson.teacher, lesson.held_out)
    before = divergence(targets, outputs(lesson.student, lesson.held_out))
    state = {name: tensor.clone() for name, tensor in lesson.student.state_dict().items()}
    kept = [0]
    for _ in range(SWEEPS):
        kept = _sweep(lesson, choices)
    after = divergence(targets, outputs(lesson.student, lesson.held_out))
    if not after <= before:
        lesson.student.load_state_dict(state)
    verdict = f"held-out divergence {before:.4g} -> {after:.4g}" + ("" if after <= before else ", so all taken back")
    note = f"refit: {sum(kept)} of {len(choices)} sites refitted{left}, {verdict}"
    return (note, *RECOVERIES["statistics"].run(lesson))


def _choices(lesson: Lesson) -> tuple[list[Choice], str]:
    """What can be refitted, and words about what cannot."""
    replaced = [choice for choice in lesson.plan.choices if not choice.dense]
    able = [choice for choice in replaced if _refusal(choice) is None]
    reasons = [f"{choice.site.name} ({_refusal(choice)})" for choice in replaced if choice not in able]
    return able, f" (left as they are: {', '.join(reasons)})" if reasons else ""


def _refusal(choice: Choice) -> str | None:
    if choice.site.members:
        return "a stack"
    if choice.site.layer.kind == "embedding":
        return "an embedding, in front of which nothing is replaced"
    return "it runs several times" if choice.site.calls != 1 else None


def _sweep(lesson: Lesson, choices: Sequence[Choice]) -> list[bool]:
    """All sites once."""
    by_name = {choice.site.name: choice for choice in choices}
    size = max(
        choice.site.layer.out_features * prod(choice.site.layer.output_size(run.size))
        for choice in choices
        for run in choice.site.runs
    )
    fitted = merged(lesson.calibration, max(1, ELEMENTS // size))
    unseen = merged(lesson.held_out, max(1, ELEMENTS // size))
    kept = []
    with closing(walk(lesson.teacher, lesson.student, list(by_name), [*fitted, *unseen])) as meetings:
        for meeting in lesson.progress(meetings, "refit", len(choices)):
            place = _Place.of(lesson, by_name[meeting.name], meeting, len(fitted))
            kept.append(place.refit())
    return kept


@dataclass(frozen=True)
class _Place:
    """One site of the student and all that is known about it."""

    choice: Choice
    teacher: nn.Module
    student: nn.Module
    weight: Tensor
    fitted: Pairs
    unseen: Pairs

    @classmethod
    def of(cls, lesson: Lesson, choice: Choice, meeting: Meeting, fitted: int) -> "_Place":
        """Args: fitted: how many of the batches are not held out."""
        site, dense = choice.site, lesson.teacher.get_submodule(choice.site.name)
        return cls(
            choice,
            lesson.teacher,
            lesson.student,
            weight_of(lesson.teacher, site).to("cpu", torch.float64).flatten(2),
            pairs_of(site, dense, meeting.seen[:fitted], meeting.wanted[:fitted], halves=True),
            pairs_of(site, dense, meeting.seen[fitted:], meeting.wanted[fitted:]),
        )

    def refit(self) -> bool:
        """Put the better of the present and the refined factors into the student."""
        site, form = self.choice.site, FORMS[self.choice.form]
        module = self.student.get_submodule(site.name)
        init = form.read(module, site.layer, self.choice.rank)  # type: ignore[arg-type]
        present = self._difference(init)
        now = output_error(self.unseen, present, self._present_shift())
        target = propagated_target(site, self.weight, self.fitted, self.unseen)
        problem = Problem(target.weight, propagated_norm(site, self.fitted))
        found = fit(form, site.layer, problem, self.choice.rank, steps=STEPS, init=init)
        tries = [(init, present), (list(found.factors), self._difference(found.factors))]
        errors = [output_error(self.unseen, difference, self._shift(difference)) for _, difference in tries]
        best = errors.index(min(errors))
        if not errors[best] < now:
            return False
        factors, difference = tries[best]
        self._put(factors, self._shift(difference))
        return True

    def _difference(self, factors: Sequence[Tensor]) -> Tensor:
        return self.weight - FORMS[self.choice.form].reconstruct(factors).reshape(self.weight.shape)

    def _shift(self, difference: Tensor) -> Tensor:
        """Of the bias, (groups, out): the one that leaves no error on average, where it may move."""
        found = best_shift(self.fitted, difference)
        return found if self.choice.site.bias_may_move else torch.zeros_like(found)

    def _present_shift(self) -> Tensor:
        """What the student's bias, or its batch norm's mean, differs by from the teacher's."""
        site, (groups, out) = self.choice.site, self.weight.shape[:2]
        if site.layer.bias:
            mine, theirs = (model.get_submodule(site.name) for model in (self.student, self.teacher))
            return (mine[-1].bias.detach().double() - theirs.bias.detach().double()).cpu().reshape(groups, out)  # type: ignore[index, operator, union-attr]
        if site.norm_behind is None:
            return self.weight.new_zeros(groups, out)
        mine, theirs = (model.get_submodule(site.norm_behind) for model in (self.student, self.teacher))
        return (theirs.running_mean.double() - mine.running_mean.double()).cpu().reshape(groups, out)  # type: ignore[operator, union-attr]

    @torch.no_grad()
    def _put(self, factors: Sequence[Tensor], shift: Tensor) -> None:
        site = self.choice.site
        bias = getattr(self.teacher.get_submodule(site.name), "bias", None)
        moved = None if bias is None else bias.detach().double() + shift.flatten().to(bias.device)
        FORMS[self.choice.form].load(self.student.get_submodule(site.name), site.layer, factors, moved)  # type: ignore[arg-type]
        if bias is None and site.norm_behind is not None:
            mine, theirs = (
                model.get_submodule(site.norm_behind).running_mean for model in (self.student, self.teacher)
            )
            mine.copy_(theirs.double() - shift.flatten().to(theirs.device))  # type: ignore[operator, union-attr, arg-type]


RECOVERIES.register(
    "refit",
    Recovery("refit", "each layer fitted again to what it really sees, then statistics; no labels", refit),
)
