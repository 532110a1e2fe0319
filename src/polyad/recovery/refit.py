"""Every layer fitted again, from input to output, to what it really sees: asymmetric reconstruction.

The factors were fitted on inputs of the original network. Teacher and student now run side by side over the calibration
inputs. When the student arrives at a site the factors there, from where they are, are refined to give what the teacher
gives at that site, on the inputs that the student has by now; so each layer repairs part of what the layers before it
did wrong (Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and Detection", TPAMI 2016,
section 3.3). The bias, or the batch norm behind, takes up the mean. Where a shortcut is added to the output, what is
wanted is the sum that the teacher has, so that the layer also makes up for what the shortcut brings along (He, Zhang
and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, section 3.3).

Layers that are dense still are refitted as well: what they see has changed too, and they have the most to make up with.
Those that leave out channels (slim.py) are among them; layers that write fewer channels stay as they are. A classifier
of many classes can be over-fitted to few images, though: where the refit of all is taken back, that of the replaced
layers alone is tried, if there is much to the dense ones.

A refit is kept where the error of the site's output falls on held-out inputs, and all of them unless the held-out
divergence from the teacher rises by more than its standard error. `statistics` follows for the sites that are left.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from polyad.batches import Batch
from polyad.digests import digest
from polyad.errors import ModelError
from polyad.evaluation import divergences, outputs
from polyad.fingerprint import hash_of
from polyad.followers import Follower, followers
from polyad.gate import gated
from polyad.lockstep import Meeting, walk
from polyad.metrics.propagated import Regression, best_shift, output_error, propagated_norm
from polyad.pair_moments import Pairs
from polyad.pairs import ROWS, pairs_of
from polyad.place import Place, State, place_of
from polyad.records import DENSE, Choice
from polyad.recovery.base import RECOVERIES, Lesson, Recovery, rose, samples_at_once
from polyad.solvers import Problem
from polyad.splits import merged
from polyad.training.average import tensors_of
from polyad.work import Piece, key_of

LANES = 64
"""Batches that are under way together, where their shapes are too different to be joined: two threads each."""

STEPS = 30
"""L-BFGS iterations of a refit."""

SHORTCUTS = True
"""Whether sums with shortcuts are what is wanted (docs/recovery.md has the figures)."""

WEIGHTY = 0.1
"""Share of the parameters that the dense layers have to hold for a refit without them to be another one."""

GATE = True
"""Whether a ReLU behind a site is looked through."""

ROUNDS, GATE_STEPS = 5, 8
"""Of the alternation in front of a ReLU (15 were no better on unseen images), and L-BFGS iterations in each."""

SHIFT = "shift"  # its name in a piece of work

Step = Callable[[Pairs], Tensor]
"""Moments with what is wanted -> W* - W."""


def refit(lesson: Lesson) -> tuple[str, ...]:
    """Refit the student's sites in order; returns what was kept."""
    replaced, joined, left = _choices(lesson)
    if not replaced:
        return (f"refit: nothing to refit{left}", *_statistics(lesson, set()))
    attempt, done, notes = _Attempt.of(lesson, left), set(), []
    own, all_of_them = (sum(choice.site.params for choice in part) for part in (replaced, joined))
    for choices in (joined, replaced) if own < (1 - WEIGHTY) * all_of_them else (joined,):
        done, note = attempt.refitted(choices)
        notes.append(f"refit: {note}")
        if done:
            break
    return (*notes, *_statistics(lesson, done))


@dataclass(frozen=True)
class _Attempt:
    """What a refit is judged by.

    Attributes:
        left: words about what is not refitted.
        targets: outputs of the teacher on the held-out inputs.
        before: the divergence of the student from each of them.
    """

    lesson: Lesson
    left: str
    targets: Tensor
    before: Tensor

    @classmethod
    def of(cls, lesson: Lesson, left: str) -> "_Attempt":
        targets = outputs(lesson.teacher, lesson.held_out)
        return cls(lesson, left, targets, divergences(targets, outputs(lesson.student, lesson.held_out)))

    def refitted(self, choices: Sequence[Choice]) -> tuple[set[str], str]:
        """The names of the sites that were changed, none where that was taken back; and words about it."""
        lesson, figures, word = self.lesson, [self.before], ""
        done, tried = set[str](), set[str]()
        for sweep in range(lesson.training.sweeps):
            state = {name: tensor.clone() for name, tensor in lesson.student.state_dict().items()}
            try:
                tried |= _sweep(lesson, choices)
                figures.append(divergences(self.targets, outputs(lesson.student, lesson.held_out)))
            except ModelError as error:
                lesson.student.load_state_dict(state)
                return set(), f"left out: {error}"
            if figures[-1].mean() > figures[-2].mean() if sweep else rose(*figures):
                lesson.student.load_state_dict(state)
                word = ", so the last sweep is taken back" if sweep else ", so all is as it was"
                break
            done |= tried
        if not word and figures[-1].mean() > self.before.mean():
            word = " (a rise within its standard error)"
        counted = f"{len(tried)} of {len(choices)} sites refitted"
        fall = " -> ".join(f"{float(figure.mean()):.4g}" for figure in figures)
        return done, f"{counted}{self.left}, held-out divergence {fall}{word}"


def _statistics(lesson: Lesson, done: set[str]) -> tuple[str, ...]:
    """For the sites that were not refitted; the others have their means, and nothing to gain (docs/recovery.md)."""
    rest = tuple(choice for choice in lesson.plan.choices if choice.site.name not in done)
    if not rest:
        return ()
    plan = lesson.plan.model_copy(update={"choices": rest})
    return RECOVERIES["statistics"].run(replace(lesson, plan=plan))


def _choices(lesson: Lesson) -> tuple[list[Choice], list[Choice], str]:
    """Replaced layers that can be refitted, the same with the dense ones, and words about what cannot."""
    replaced = [choice for choice in lesson.plan.choices if choice.form != DENSE]
    able = [choice for choice in replaced if _refusal(choice) is None]
    reasons = [f"{choice.site.name} ({_refusal(choice)})" for choice in replaced if choice not in able]
    joined = able and [choice for choice in lesson.plan.choices if choice in able or _joins(choice, able, lesson)]
    return able, joined, f" (left as they are: {', '.join(reasons)})" if reasons else ""


def _joins(choice: Choice, replaced: Sequence[Choice], lesson: Lesson) -> bool:
    """Whether a dense layer is refitted too: where that leaves room for as many samples as the replaced ones do."""
    if choice.form != DENSE or _refusal(choice) is not None:
        return False
    samples = sum(batch.size for batch in (*lesson.calibration, *lesson.held_out))
    room = samples_at_once([one.site for one in replaced])
    return samples_at_once([choice.site]) >= min(room, samples)


def _refusal(choice: Choice) -> str | None:
    if choice.site.members:
        return "a stack"
    if choice.site.layer.kind == "embedding":
        return "an embedding, in front of which nothing is replaced"
    return "it runs several times" if choice.site.calls != 1 else None


def _sweep(lesson: Lesson, choices: Sequence[Choice]) -> set[str]:
    """All sites once; the names of those that were changed."""
    sites, by_name = [choice.site for choice in choices], {choice.site.name: choice for choice in choices}
    room = samples_at_once(sites)
    fitted, unseen = (merged(part, room)[:LANES] for part in (lesson.calibration, lesson.held_out))
    behind = followers(lesson.teacher, sites, fitted[0].take(2))
    summed = [name for name, follower in behind.items() if follower.summed and SHORTCUTS]
    key = _key(lesson, choices, fitted, unseen)
    done = set()
    with closing(walk(lesson.teacher, lesson.student, sites, [*fitted, *unseen], summed)) as meetings:
        for meeting in lesson.progress(meetings, "refit", len(choices)):
            place = place_of(by_name[meeting.name], lesson.teacher, lesson.student)
            parts = (
                _Inputs.of(place, meeting, slice(0, len(fitted))),
                _Inputs.of(place, meeting, slice(len(fitted), None)),
            )
            make = partial(_piece, place, *parts, behind[meeting.name])
            found = lesson.remember(key_of("refit", *key, meeting.name), make).tensors
            if found:
                place.put(State(tuple(found[str(at)] for at in range(len(found) - 1)), found[SHIFT]))
                done.add(meeting.name)
    return done


def _key(lesson: Lesson, choices: Sequence[Choice], *batches: Sequence[Batch]) -> tuple[object, ...]:
    """What the refit of a site hangs on, beside its name."""
    networks = (digest(tensors_of(model)) for model in (lesson.student, lesson.teacher))
    inputs = (hash_of([(one.args, one.kwargs) for one in part]) for part in batches)
    return (*networks, *inputs, [choice.model_dump_json() for choice in choices], GATE, SHORTCUTS)


def _piece(place: Place, fitted: "_Inputs", unseen: "_Inputs", behind: Follower) -> Piece:
    """What a refit found, as it is kept: factors by number, and the shift; nothing where it found nothing better."""
    state = _refit(place, fitted, unseen, behind)
    found = {} if state is None else {SHIFT: state.shift, **{str(at): one for at, one in enumerate(state.factors)}}
    return Piece(found)


@dataclass(frozen=True)
class _Inputs:
    """What is known of a site over some of the batches: what it sees, what is wanted of it; what goes into a ReLU
    behind it in the teacher, and what is added to the site's own part of that in the student."""

    seen: Sequence[Tensor]
    wanted: Sequence[Tensor]
    before: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, place: Place, meeting: Meeting, part: slice) -> "_Inputs":
        def channels(values: Tensor, like: Tensor) -> Tensor:
            return values.to(like).reshape(-1, *(1,) * place.site.layer.dims)

        factor, constant = place.scale()
        seen = meeting.seen[part]
        given = [y.to(torch.promote_types(y.dtype, torch.float32)) for y in meeting.wanted[part]]
        beside = [(torch.zeros_like(y), torch.zeros_like(y)) for y in given]
        beside = beside if meeting.beside is None else meeting.beside[part]
        wanted, before = [], []
        for y, (mine, theirs) in zip(given, beside, strict=True):
            scale, constants = channels(factor, y), channels(constant, y)
            wanted.append(y if meeting.beside is None else y + (theirs - mine) / scale)
            before.append((scale * y + constants + theirs, constants + mine))
        return cls(seen, wanted, before)


def _refit(place: Place, fitted: _Inputs, unseen: _Inputs, behind: Follower) -> State | None:
    """A better state than the present one, if there is any."""
    site, dense = place.site, place.original
    pairs = pairs_of(site, dense, fitted.seen, fitted.wanted, halves=True)
    check = pairs_of(site, dense, unseen.seen, unseen.wanted, limit=ROWS // 4)
    if not (pairs.energy.isfinite().all() and check.energy.isfinite().all() and pairs.moment.isfinite().all()):
        return None  # a network that layers before this one have broken
    present = place.read()
    regression = Regression.on(site, pairs)
    ridge, share = regression.best(pairs, check)

    def step(wanted: Pairs) -> Tensor:
        return share * regression.step(wanted, ridge)

    found = _fitted(place, present, pairs, step(pairs), STEPS)
    tries = [present, _centred(place, present.factors, pairs), found]

    def error(state: State) -> float:
        return output_error(check, place.dense[0] - place.weight(state), state.shift)

    best = min(tries, key=error)
    if GATE and behind.ceiling is not None and (SHORTCUTS or not behind.summed):
        best = _gated(place, best, (fitted, unseen), behind.ceiling, pairs, step)
    return None if best is present else best


def _fitted(place: Place, start: State, pairs: Pairs, step: Tensor, steps: int) -> State:
    problem = Problem(place.dense[0] + step, propagated_norm(place.site, pairs))
    return _centred(place, place.fitted(problem, start.factors, steps), pairs)


def _centred(place: Place, factors: Sequence[Tensor], pairs: Pairs) -> State:
    """With the shift that leaves no error on average, where the bias may move."""
    state = State(tuple(factors), torch.zeros_like(pairs.lack))
    if not place.site.bias_may_move:
        return state
    return State(state.factors, best_shift(pairs, place.dense[0] - place.weight(state)))


def _gated(
    place: Place, start: State, inputs: tuple[_Inputs, _Inputs], ceiling: float, pairs: Pairs, step: Step
) -> State:
    """Refitted in rounds to what is wanted in front of a ReLU; of all rounds the one with the least error behind it.

    Args:
        inputs: fitted and held-out ones.
        ceiling: of the ReLU.
        pairs: moments over the fitted ones.
        step: from W towards what is wanted.
    """
    layer, (factor, _) = place.site.layer, place.scale()
    rows, check = (
        gated(layer, part.seen, part.before, factor, ceiling, limit=limit)
        for part, limit in zip(inputs, (ROWS, ROWS // 4), strict=True)
    )

    def now(state: State) -> tuple[Tensor, Tensor]:
        return place.weight(state), place.dense[1] + state.shift

    states = [start]
    for _ in range(ROUNDS):
        wanted = rows.pairs(pairs, place.dense, now(states[-1]))
        states.append(_fitted(place, states[-1], wanted, step(wanted), GATE_STEPS))
    return min(states, key=lambda state: check.error(*now(state)))


RECOVERIES.register(
    "refit",
    Recovery("refit", "each layer fitted again to what it really sees, statistics for the others; no labels", refit),
)
