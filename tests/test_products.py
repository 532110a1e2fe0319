"""Rows that one index ties to entries of their own: every product is that of the full rows."""

import pytest
import torch

from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Problem
from polyad.solvers.found import elimination_of
from polyad.solvers.products import WORTH, FullRows, TiedRows, products
from polyad.solvers.projection import Projection

TIED = {"group_svd", "spatial_svd"}


def conv(groups: int = 1) -> LayerSpec:
    """Of weight (groups, 12, 8, 3, 3)."""
    return LayerSpec(kind="conv", in_features=8 * groups, out_features=12 * groups, groups=groups, kernel=(3, 3),
                     stride=(1, 1), padding=(1, 1), dilation=(1, 1))  # fmt: skip


def made_up(groups: int = 1, *, full: bool = True) -> Problem:
    """A random weight in a random norm, full or diagonal."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(groups, 12, 72, generator=generator, dtype=torch.float64)
    inputs = torch.randn(groups, 72, 144, generator=generator, dtype=torch.float64)
    return Problem(weight, inputs @ inputs.mT / 72 if full else inputs.square().sum(-1))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("form", sorted(TIED))
def test_tied_rows_give_what_full_rows_give(form: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, given = conv(groups), made_up(groups)
    split, shapes = elimination_of(FORMS[form]), FORMS[form].factor_shapes(layer, (4,))
    assert split is not None
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    others = [factor for at, factor in enumerate(factors) if at != split.position]
    found = {}
    for kind, worth in ((FullRows, 1 << 60), (TiedRows, 0)):
        monkeypatch.setattr("polyad.solvers.products.WORTH", worth)
        projection = Projection(FORMS[form], split, given, FORMS[form].sizes(layer), shapes)
        assert isinstance(projection.products, kind)
        value, gradients = projection.value_and_gradients(others)
        found[kind] = [torch.tensor(value), *gradients, *projection.completed(others)]
    for full, tied in zip(found[FullRows], found[TiedRows], strict=True):
        torch.testing.assert_close(tied, full, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_full_unless_a_tie_and_a_wide_full_norm_make_it_worth_while(form: str) -> None:
    split = elimination_of(FORMS[form])
    if split is None or FORMS[form].refuses(conv()):
        pytest.skip(f"{form} refuses it, or its outputs stand in several factors")
    sizes = FORMS[form].sizes(conv())
    assert isinstance(products(split, made_up(), sizes, WORTH), TiedRows if form in TIED else FullRows)
    assert isinstance(products(split, made_up(), sizes, WORTH - 1), FullRows)
    assert isinstance(products(split, made_up(full=False), sizes, WORTH), FullRows)


@pytest.mark.parametrize("form", ["cp", "spatial_svd", "group_svd"])
def test_whitening_keeps_errors_and_takes_a_wide_norm_in_parts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = made_up().whitened(FORMS[form], conv()).problem
    monkeypatch.setattr("polyad.solvers.transform.WIDE", 4000)
    in_parts = made_up().whitened(FORMS[form], conv()).problem
    torch.testing.assert_close(in_parts.matrix, at_once.matrix, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(in_parts.weight, at_once.weight, rtol=1e-12, atol=1e-12)
    assert float(at_once.squared_norm(at_once.weight)) == pytest.approx(made_up().energy, rel=1e-9)
