"""What candidates do to the peak of a network's activations.

While a site runs there live its input, its output, what its factors pass to each other, and whatever else of the
network waits. The last does not depend on the candidate, so the peak of the network is the largest of: the peaks of
the chosen candidates, each with what waits beside it, and the peak while no site runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn
from torch.utils._pytree import tree_iter, tree_map

from polyad.batches import Batch
from polyad.budget import Budget
from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.liveness import Record, Window, peak_of_layer, recorded
from polyad.menu import Candidate, Menu
from polyad.outcome import Amount
from polyad.records import DENSE, Rank, Site
from polyad.splits import Call


@dataclass(frozen=True)
class _Place:
    """One call of a site: its window, the bytes that wait beside it, those of its input, whether that is read later."""

    window: Window
    beside: int
    input_bytes: int
    input_stays: bool

    @property
    def alone(self) -> "_Place":
        """The same for all calls on an input of one kind."""
        return replace(self, beside=0, window=replace(self.window, start=0, stop=0, source=0))


def peak(model: nn.Module, example: Batch | Call) -> int:
    """Bytes of activations that live at most in one forward pass of one sample (of a person's own loop, as it is)."""
    return max(_recorded(model, example, ()).alive(), default=0)


def peaks_of(
    model: nn.Module, student: nn.Module, budget: str, example: Batch | Call
) -> tuple[Amount | None, tuple[str, ...]]:
    """Peak memory before and after where a budget names it, and a note where it is above the limit all the same."""
    if "memory=" not in budget:
        return None, ()
    found = Amount(before=peak(model, example), after=peak(student, example))
    (limit,) = Budget.parse(budget).limits({"memory": found.before}).values()
    if found.after <= limit:
        return found, ()
    return found, (
        f"memory: the network takes {found.after:,} bytes where {limit:,} were asked for, because a layer hands its"
        " output over in another layout than the original's; ask for a little less, or leave its form out",
    )


def with_peaks(model: nn.Module, menu: Menu, example: Batch | Call) -> Menu:
    """The menu with the memory of every candidate.

    Args:
        model: the original network.
        menu: from `propose`.
        example: a batch, of which one sample is taken, or a person's own loop.
    """
    record = _recorded(model, example, menu.sites)
    alive, inside = record.alive(), set()
    price = cache(_peak)
    candidates, peaks = {}, []
    for site in menu.sites:
        windows = [window for name in site.modules for window in record.windows.get(name, ())]
        inside |= {at for window in windows for at in range(window.start, window.stop)}
        places = [_place(record, window) for window in windows]
        dense = max((max(alive[w.start : w.stop], default=0) for w in windows), default=0)
        peaks.append(dense)
        candidates[site.name] = tuple(_priced(c, site, places, dense, price) for c in menu.candidates[site.name])
    elsewhere = max((bytes for at, bytes in enumerate(alive) if at not in inside), default=0)
    return replace(menu, candidates=candidates, memory=max(elsewhere, *peaks), memory_elsewhere=elsewhere)


def _recorded(model: nn.Module, example: Batch | Call, sites: Sequence[Site]) -> Record:
    one, inputs = example.take(1), []
    if isinstance(one, Batch):  # a copy: a sample cut out of a batch lies in the storage of all of them
        args, kwargs = tree_map(lambda x: x.clone() if torch.is_tensor(x) else x, (one.args, one.kwargs))
        one = Batch(args, kwargs).beside(model)  # moved there, they would count twice
        inputs = [x for x in tree_iter((one.args, one.kwargs)) if torch.is_tensor(x)]
    return recorded(model, one.run, inputs, {name: model.get_submodule(name) for s in sites for name in s.modules})


def _place(record: Record, window: Window) -> _Place:
    lives = record.lives()
    waiting = [
        storage
        for storage, (first, last) in lives.items()
        if first < window.start and last >= window.stop and storage != window.source
    ]
    stays = window.source in record.inputs or lives[window.source][1] >= window.stop
    return _Place(window, sum(record.sizes[s] for s in waiting), record.sizes[window.source], stays)


def _priced(candidate: Candidate, site: Site, places: Sequence[_Place], dense: int, price) -> Candidate:
    if candidate.form == DENSE or not places:
        return candidate.model_copy(update={"memory": dense})
    dtype = getattr(torch, site.dtype)
    found = [place.beside + price(candidate.form, site.layer, candidate.rank, dtype, place.alone) for place in places]
    return candidate.model_copy(update={"memory": max(found)})


def _peak(form: str, layer: LayerSpec, rank: Rank, dtype: torch.dtype, place: _Place) -> int:
    """The peak of a candidate with its input, on the meta device; the same for layers of one shape."""
    module = FORMS[form].skeleton(layer, rank, dtype, "meta")
    return peak_of_layer(module, place.window, input_bytes=place.input_bytes, input_stays=place.input_stays)
