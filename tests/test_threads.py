"""The same factors however many threads PyTorch may use: rounding differs with them, and descents would carry it on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
from polyad.decompositions.base import FORMS
from polyad.layers import LayerSpec
from polyad.solvers import Problem, fit, fit_path

layer = LayerSpec(
    kind="conv", in_features=10, out_features=24, kernel=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)
)
generator = torch.Generator().manual_seed(0)
weight, rows = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((1, 24, 90), (200, 90)))
problem = Problem(weight, (rows.mT @ rows / 200).unsqueeze(0))
found = {}
for name in [name for name in FORMS if FORMS[name].default]:
    form = FORMS[name]
    rank = tuple(max(1, top // 6) for top in form.max_rank(layer))
    steps = 100 if form.many_optima and form.term_letter else 20  # from 100 on there are several starts
    fits = [fit(form, layer, problem, rank, steps=steps), *fit_path(form, layer, problem, [rank], steps=20, brief=True)]
    fits.append(fit(form, layer, problem, rank, steps=10, init=fits[0].factors))
    found[name] = [form.reconstruct(one.factors) for one in fits]
assert torch.get_num_threads() == int(sys.argv[1])
torch.save(found, sys.argv[2])
"""


def weights(threads: int, folder: Path) -> dict[str, list[torch.Tensor]]:
    file = folder / f"{threads}.pt"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(threads), str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(file)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[torch.Tensor]]:
    return weights(1, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("threads", [2, 4])
def test_the_number_of_threads_changes_no_fit(
    threads: int, alone: dict[str, list[torch.Tensor]], tmp_path: Path
) -> None:
    """Thorough, brief and continued fits of the default forms, CP from several starts."""
    found = weights(threads, tmp_path)
    apart = {
        name: max(float((a - b).norm() / b.norm()) for a, b in zip(found[name], alone[name], strict=True))
        for name in alone
    }
    assert max(apart.values()) < 1e-5, apart
