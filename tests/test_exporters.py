"""Networks as files for other runtimes: the same outputs, or no file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import polyad as polyad_library
from conftest import Polyad
from polyad.bare import Place, seeded
from polyad.batches import Batch
from polyad.decompositions.base import FORMS
from polyad.errors import ExportError, UnknownNameError
from polyad.exporters.base import EXPORTERS, check_installed, inputs_of
from polyad.exporters.export import export
from polyad.exporters.onnx import load, to_onnx
from polyad.layers import LayerSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LAYERS = {
    "conv": (LayerSpec(kind="conv", in_features=8, out_features=12, bias=True, kernel=(3, 3), stride=(2, 2),
                       padding=(1, 1), dilation=(1, 1)), (9, 7)),
    "grouped": (LayerSpec(kind="conv", in_features=8, out_features=12, kernel=(3, 3), stride=(1, 1), padding=(1, 1),
                          dilation=(1, 1), groups=2), (6, 6)),
    "linear": (LayerSpec(kind="linear", in_features=12, out_features=16, bias=True), (5,)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_in_onnx_and_without_einsum(form: str, kind: str) -> None:
    """For any number of samples; einsum is slow in every runtime."""
    layer, size = LAYERS[kind]
    if FORMS[form].refuses(layer) or (rank := FORMS[form].break_even(layer)) is None:
        pytest.skip("it does not carry this layer")
    torch.manual_seed(0)
    place = Place(layer, "float32", size)
    module = place.module(form, rank).eval()
    data = to_onnx(module, Batch((place.inputs(3),)))
    operators = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert not operators & {"Einsum", "Loop", "If", "Scan"}
    run = load(data)
    for samples in (3, 1, 4):
        x = place.inputs(samples)
        with torch.no_grad():
            wanted = module(x).numpy()
        assert np.abs(run(Batch((x,))) - wanted).max() <= 1e-5 * np.abs(wanted).max()


class TwoInputs(nn.Module):
    """Positional and named inputs, several outputs, a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(5, 8)

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return y + self.other(scale), y


@pytest.mark.parametrize("format", EXPORTERS)
def test_a_network_is_written_and_left_alone(format: str, tmp_path: Path) -> None:
    model, file = seeded(TwoInputs()).train(), tmp_path / f"net{EXPORTERS[format].suffix}"
    batch = Batch((torch.randn(3, 3, 8, 8),), {"scale": torch.randn(3, 5)})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = export(model, batch, file, format=format)
    assert found.bytes == file.stat().st_size > 0 and found.difference <= 1e-4
    assert model.training and all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    with pytest.raises(ExportError, match="is there already"):
        export(model, batch, file, format=format)


class DataDependent(nn.Module):
    """What an exporter that follows one example gets wrong for another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    batch = Batch((torch.tensor([[-1.0, -1.0], [5.0, 5.0]]),))
    with pytest.raises(ExportError, match="outputs differ by 2 of the largest.*not kept"):
        polyad_library.export(DataDependent(), batch.args[0], tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    model, batch = nn.Linear(2, 2), Batch((torch.randn(2, 2),))
    with pytest.raises(UnknownNameError, match="export format 'onx'.*'onnx'"):
        export(model, batch, tmp_path / "net", format="onx")
    with pytest.raises(ExportError, match="cannot be written"):
        export(model, batch, tmp_path / "nowhere" / "net.onnx")
    with pytest.raises(ExportError, match=r"needs no_such_package: pip install polyad\[export\]"):
        check_installed("It", ["torch", "no_such_package"])


def test_inputs_keep_their_names() -> None:
    x = torch.zeros(1, 2)
    assert list(inputs_of(Batch((x, x), {"mask": x}))) == ["input", "input_1", "mask"]


def test_on_the_command_line(polyad: Polyad, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    ran = polyad("export", "zoo:digits_cnn", "--format", "onnx", "--out", file, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["bytes"] == file.stat().st_size
    assert polyad("export", "zoo:digits_cnn", "--out", file).code == 2
    assert {"onnx", "pt2"} <= {row["name"] for row in json.loads(polyad("formats", "--json").out)}
