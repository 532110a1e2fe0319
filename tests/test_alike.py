"""Sites of one shape are fitted together by a rule, and what comes out is the same wherever and however it is made."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyad.alike import HELD, MOST, ROOM, most, tasks
from polyad.batches import Batch
from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.menu import Menu
from polyad.observe import observe
from polyad.propose import propose
from polyad.records import Site, Statistics, Trace
from polyad.settings import Settings
from polyad.trace import trace
from polyad.work import Work

FAMILIES = [FORMS[name] for name in ("svd", "cp", "tucker2", "spatial_svd")]
JOINT = {"cp", "spatial_svd"}
SETTINGS = Settings(forms=("svd", "cp", "spatial_svd"))
Look = tuple[nn.Module, Trace, dict[str, Statistics]]


@pytest.fixture(scope="module")
def seen() -> Look:
    """Three layers of one shape, two of another, one by itself, and a head."""
    torch.manual_seed(0)
    widths = [(3, 5), (5, 5), (5, 5), (5, 5), (5, 6), (6, 6), (6, 6)]
    parts = [layer for pair in widths for layer in (nn.Conv2d(*pair, 3, padding=1), nn.ReLU())]
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(6 * 25, 5)).eval()
    return looked_at(model)


def looked_at(model: nn.Module) -> Look:
    fitted, unseen = torch.randn(2, 40, 3, 5, 5, generator=torch.Generator().manual_seed(1)).unbind()
    found = trace(model, Batch((fitted,)))
    return model, found, observe(model, found.sites, [Batch((fitted,))], [Batch((unseen,))])


def members(sites: Iterable[Site], **fixed: Any) -> list[list[str]]:
    """Names of the sites that are fitted together."""
    found = tasks(tuple(sites), FAMILIES, {name.removeprefix("at"): choice for name, choice in fixed.items()})
    return sorted([site.name for site in task.sites] for task in found if len(task.sites) > 1)


def test_every_site_is_fitted_once_in_every_form(seen: Look) -> None:
    sites = seen[1].sites
    fitted = [
        (site.name, form.name) for task in tasks(sites, FAMILIES, {}) for site in task.sites for form in task.forms
    ]
    assert sorted(fitted) == sorted((site.name, form.name) for site in sites for form in FAMILIES)


def test_sites_of_one_shape_go_together_in_forms_that_can(seen: Look) -> None:
    sites = seen[1].sites
    assert members(sites) == [["10", "12"], ["2", "4", "6"]]
    assert members(sites[:3]) == [["2", "4"]]
    for task in tasks(sites, FAMILIES, {}):
        joint = {form.name for form in task.forms} & JOINT
        assert ({form.name for form in task.forms} == joint) == (len(task.sites) > 1)


def test_given_choices_stay_alone(seen: Look) -> None:
    sites = seen[1].sites
    assert members(sites, at4=("cp", (3,)), at10=("dense", ())) == [["2", "6"]]
    found = tasks(sites, FAMILIES, {"4": ("cp", (3,)), "10": ("dense", ())})
    assert [[form.name for form in task.forms] for task in found if task.sites[0].name in ["4", "10"]] == [["cp"]]


@pytest.mark.parametrize("count", [2, 17, 18, 19, 40])
@pytest.mark.parametrize("channels", [4, 16, 32, 64, 128, 512])
def test_no_more_norms_are_held_than_there_is_room_for(channels: int, count: int) -> None:
    layer = LayerSpec(kind="conv", in_features=channels, out_features=channels, kernel=(3, 3), stride=(1, 1))
    sites = [Site(name=str(at), layer=layer, dtype="float32", runs=()) for at in range(count)]
    parts = [task.sites for task in tasks(sites, FAMILIES, {}) if {form.name for form in task.forms} <= JOINT]
    assert most(layer) == 1 or most(layer) * HELD * (9 * channels) ** 2 <= ROOM
    assert {len(part) for part in parts} <= set(range(1, MOST + 1))
    if channels <= 32:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1 and sum(map(len, parts)) == count
    if channels >= 128:
        assert not parts


def made(seen: Look, *, threads: int = 1, **more: Any) -> Menu:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return propose(*seen, more.pop("settings", SETTINGS), **more)
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(seen: Look) -> Menu:
    return made(seen)


@pytest.mark.parametrize("threads", [2, 4])
def test_any_number_of_threads_gives_the_same_menu(seen: Look, whole: Menu, threads: int) -> None:
    assert made(seen, threads=threads).candidates == whole.candidates


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_menu_goes_on_to_the_same(seen: Look, whole: Menu, after: int, tmp_path: Path) -> None:
    def stopping(items: Iterable[Any], _: str, __: int | None = None) -> Iterator[Any]:
        for at, item in enumerate(items):
            if at == after:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        made(seen, work=Work(tmp_path), progress=stopping)
    for piece in sorted(tmp_path.iterdir())[::2]:  # others than those that one thread would have kept
        piece.unlink()
    work = Work(tmp_path)
    assert made(seen, work=work).candidates == whole.candidates
    assert work.made["menu"] > 0
    again = Work(tmp_path)
    assert made(seen, work=again).candidates == whole.candidates
    assert again.taken["menu"] == len(list(tmp_path.iterdir())) and not again.made


def test_a_changed_weight_takes_no_stale_fit(seen: Look, whole: Menu, tmp_path: Path) -> None:
    made(seen, work=Work(tmp_path))
    other = deepcopy(seen[0])
    with torch.no_grad():
        other.get_submodule("4").weight[0].mul_(3)  # type: ignore[operator]
    changed = (other, *seen[1:])
    work = Work(tmp_path)
    found = made(changed, work=work)
    assert found.candidates == made(changed).candidates and found.candidates["4"] != whole.candidates["4"]
    assert found.candidates["10"] == whole.candidates["10"]
    assert work.made["menu"] == 1 + len(JOINT)  # alone in svd, and in the two forms together with its like


def test_a_given_choice_is_the_only_candidate(seen: Look, whole: Menu) -> None:
    settings = Settings(forms=SETTINGS.forms, fixed={"4": ("cp", (3,)), "6": ("dense", ())})
    found = made(seen, settings=settings).candidates
    assert [(c.form, c.rank) for c in found["4"]] == [("cp", (3,))]
    assert [c.form for c in found["6"]] == ["dense"]
    for name in ("0", "8", "10", "12"):
        assert found[name] == whole.candidates[name]
    for one, two in zip(found["2"], whole.candidates["2"], strict=True):
        assert (one.form, one.rank) == (two.form, two.rank)
        assert one.error == pytest.approx(two.error, rel=0.3, abs=1e-4)
