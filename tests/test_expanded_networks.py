"""From a network of attention or recurrent modules to a smaller one in a folder and back, in Python and on the command
line."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import Polyad
from expandable import Fused, Rows, Tokens, built, images
from polyad.budget import Budget
from polyad.checkpoint import load_network, read_plan, write_plan
from polyad.errors import PlanError
from polyad.expansions.attention import Attention
from polyad.expansions.encoder import Encoder
from polyad.expansions.recurrent import Recurrent
from polyad.pipeline import Result, compress, plan
from polyad.records import Choice, Plan
from polyad.saving import save

X = images(60)
HALF = Budget(params=0.5)
NETWORKS = {"tokens": Tokens, "rows": Rows, "gru": lambda: Rows(nn.GRU)}


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Result]:
    model = built(NETWORKS[request.param])
    return model, compress(model, [X], budget=HALF, evaluation=[X])


def test_half_of_the_parameters_go_from_all_kinds_of_layers(pair: tuple[nn.Module, Result]) -> None:
    model, result = pair
    assert result.report.params.before == sum(p.numel() for p in model.parameters())
    assert result.report.params.after == sum(p.numel() for p in result.model.parameters())
    assert 0.4 < result.report.params.kept <= 0.5
    inside = [c for c in result.plan.choices if not c.dense and c.site.name.count(".") and "linear" not in c.site.name]
    assert inside  # in an attention or a recurrent module
    assert result.report.after is not None and result.report.after.divergence is not None
    with torch.no_grad():
        error = (result.model(X) - model(X)).square().sum() / model(X).square().sum()
    assert error < 0.15  # random weights of decaying spectrum: halving them costs little


def test_saved_and_loaded_it_is_the_same(pair: tuple[nn.Module, Result], tmp_path: Path) -> None:
    model, result = pair
    save(result, tmp_path / "small")
    loaded = load_network(tmp_path / "small", model)
    assert loaded.state_dict().keys() == result.model.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(loaded(X), result.model(X))
    empty = load_network(tmp_path / "small", deepcopy(model).to("meta"))  # how a known architecture is loaded
    with torch.no_grad():
        assert torch.equal(empty(X), result.model(X))


def test_a_plan_is_written_read_and_replayed(pair: tuple[nn.Module, Result], tmp_path: Path) -> None:
    model, result = pair
    write_plan(result.plan, tmp_path / "plan.json")
    again = read_plan(tmp_path / "plan.json")
    assert again == result.plan and list(again.expanded) == list(result.plan.expanded)
    replayed = compress(model, [X], plan=again)
    with torch.no_grad():
        assert torch.equal(replayed.model(X), result.model(X))


def test_it_trains_further(pair: tuple[nn.Module, Result]) -> None:
    _, result = pair
    model = result.model.train()
    model(X[:8]).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    model.eval()


def only(found: Plan, *names: str) -> Plan:
    """The plan with all other layers dense."""

    def kept(choice: Choice) -> Choice:
        return choice if choice.site.name in names else choice.model_copy(update={"form": "dense", "rank": ()})

    return found.model_copy(update={"choices": tuple(map(kept, found.choices))})


def given(model: nn.Module, *names: str) -> Plan:
    """A plan that replaces these layers and no others."""
    found = plan(model, [X], budget=Budget(params=0.99), fixed={name: ("svd", (4,)) for name in names})
    return only(found, *names)


def test_what_stays_dense_stays_native() -> None:
    model = built(Tokens)
    decided = given(model, "encoder.layers.1.self_attn.q_proj")
    assert set(decided.expanded) == {"encoder", "encoder.layers.0.self_attn", "encoder.layers.1.self_attn"}
    found = compress(model, [X], plan=decided).model
    first, second = (found.get_submodule(f"encoder.layers.{n}.self_attn") for n in (0, 1))
    assert type(first) is nn.MultiheadAttention and isinstance(second, Attention)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, model.get_submodule("encoder.layers.0.self_attn").state_dict()[name])
    head = compress(model, [X], plan=given(model, "head")).model
    assert type(head.encoder) is nn.TransformerEncoder
    assert not any(isinstance(module, (Attention, Encoder)) for module in head.modules())
    rows = built(Rows)
    assert type(compress(rows, [X], plan=given(rows, "head")).model.rnn) is nn.LSTM
    assert isinstance(compress(rows, [X], plan=given(rows, "rnn.hh_l1")).model.rnn, Recurrent)


def test_attention_is_expanded_where_its_layer_would_run_as_one_kernel() -> None:
    """A fused TransformerEncoderLayer would read the weight of the linear layer that is no longer there."""
    model = built(Tokens)
    decided = given(model, "encoder.layers.0.linear1")
    found = compress(model, [X], plan=decided).model
    assert isinstance(found.get_submodule("encoder.layers.0.self_attn"), Attention)
    assert type(found.get_submodule("encoder.layers.1.self_attn")) is nn.MultiheadAttention
    with torch.no_grad():
        assert found(X).isfinite().all()
    odd = built(Tokens, norm_first=True)
    odd.encoder.layers[0].norm1.eps = 1e-4  # differs from norm2's, so it never runs as one
    slow = compress(odd, [X], plan=given(odd, "encoder.layers.0.linear1")).model
    assert type(slow.get_submodule("encoder.layers.0.self_attn")) is nn.MultiheadAttention
    with torch.no_grad():
        assert slow(X).isfinite().all()


def test_a_plan_of_another_network_is_refused() -> None:
    decided = given(built(Rows), "rnn.hh_l1")
    with pytest.raises(PlanError, match="expands rnn"):
        compress(built(Tokens), [X], plan=decided)
    other = built(Rows, kind=nn.GRU)
    with pytest.raises(PlanError, match=r"rnn\.ih_l0 differs"):
        compress(other, [X], plan=decided)


def test_a_plan_from_before_there_were_expansions_leaves_everything_native() -> None:
    model = built(Tokens, norm_first=True)
    decided = given(model, "head").model_dump(exclude={"expanded"})
    decided["choices"] = [c for c in decided["choices"] if c["site"]["name"] in ("embed", "head")]
    result = compress(model, [X], plan=Plan.model_validate(decided))
    assert type(result.model.get_submodule("encoder.layers.0.self_attn")) is nn.MultiheadAttention
    assert isinstance(result.model.head, nn.Sequential)


def test_refusals_reach_the_plan_and_the_report() -> None:
    model = built(Rows)
    model.extra = nn.MultiheadAttention(8, 2, add_zero_attn=True)
    found = compress(model, [X], budget=Budget(params=0.7))
    for refused in (found.plan.refused, found.report.refused):
        assert {r.name: r.reason for r in refused}["extra"].startswith("it adds a key and value of zeros")
    again = compress(model, [X], plan=found.plan)
    assert again.report.refused == found.report.refused


CODE = """
from expandable import Fused, Rows, built


def build():
    return built(Fused)


def rows():
    return built(Rows)


def data():
    import torch
    from torch.utils.data import TensorDataset
    from expandable import images
    x = images(60)
    return TensorDataset(x, torch.arange(60) % 10)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def run_json(polyad: Polyad, *arguments: str | Path) -> dict:
    ran = polyad(*arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def test_splits_on_the_command_line(polyad: Polyad, file: Path, tmp_path: Path) -> None:
    model, data = f"{file}:build", ("--data", f"{file}:data", "--samples", "40")
    chosen = (model, *data, "--budget", "params=60%", "--split", "qk*=3")
    found = run_json(polyad, "compress", *chosen, "--out", tmp_path / "small")
    assert [site["name"] for site in found["sites"]] == ["qkv.0", "qkv.1", "qkv.2", "proj"]
    assert run_json(polyad, "plan", *chosen)["expanded"]["qkv"]["parts"] == [16, 16, 16]
    again = run_json(polyad, "compress", "--recipe", tmp_path / "small" / "recipe.yaml", "--out", tmp_path / "again")
    assert again["sites"] == found["sites"]
    replay = (model, *data, "--plan", tmp_path / "small" / "plan.json")
    assert run_json(polyad, "compress", *replay, "--out", tmp_path / "replayed")["sites"] == found["sites"]
    ran = polyad("compress", *replay, "--split", "qkv=3", "--out", tmp_path / "no")
    assert ran.code == 2 and "--plan has decided already, so --split" in ran.err
    loaded, x = load_network(tmp_path / "small", Fused()), images(6)
    with torch.no_grad():
        assert torch.equal(loaded(x), load_network(tmp_path / "replayed", Fused())(x))
    weights = run_json(polyad, "evaluate", tmp_path / "small", "--model", model, "--data", f"{file}:data")
    assert weights["samples"] > 0


def test_inspect_shows_what_was_expanded_and_what_was_not(polyad: Polyad, file: Path) -> None:
    found = run_json(polyad, "inspect", f"{file}:rows", "--input", "8,8", "--split", "rnn.ih_l0=24,72")
    assert list(found["expanded"]) == ["rnn", "rnn.ih_l0"]
    names = [site["name"] for site in found["sites"]]
    assert {"rnn.ih_l0.0", "rnn.ih_l0.1", "rnn.hh_l0", "rnn.ih_l1_reverse"} <= set(names)
    ran = polyad("inspect", f"{file}:rows", "--input", "8,8")
    assert "expanded: rnn (recurrent), 8 sites inside" in ran.out
    ran = polyad("inspect", f"{file}:rows", "--input", "8,8", "--split", "rnn.ih_l0=7")
    assert ran.code == 2 and "do not make 7 equal parts" in ran.err
    ran = polyad("inspect", f"{file}:rows", "--input", "8,8", "--split", "rnn.ih_l0")
    assert ran.code == 2 and "LAYER=PARTS" in ran.err
