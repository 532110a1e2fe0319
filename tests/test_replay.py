"""A network run again from the block that changed gives what the whole network gives."""

import pytest
import torch
from torch import Tensor, nn

from polyad.batches import Batch
from polyad.replay import Replay


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(torch.relu(self.first(x)))
        out += x
        return torch.relu_(out)


class InPlace(nn.Module):
    """The second block changes its input, which is used again: nothing here may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolutions[0](x)
        self.activation(x)
        for convolution in self.convolutions[1:]:
            x = x + convolution(x)
        return x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.others = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)
        for other in self.others:
            x = torch.relu(other(x))
        return self.shared(x)


NETWORKS = {
    "residual": (lambda: nn.Sequential(*(Residual() for _ in range(4))), 0.6),
    "in place": (InPlace, 1.0),
    "twice": (Twice, 1.0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_only_what_changed_is_computed_again(name: str) -> None:
    torch.manual_seed(0)
    make, most = NETWORKS[name]
    model, batch = make().eval(), Batch((torch.randn(6, 4, 8, 8),))
    layers = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    ran: list[str] = []
    for key in layers:
        model.get_submodule(key).register_forward_hook(lambda *_, key=key: ran.append(key))
    with torch.no_grad():
        replay = Replay(model, layers, lambda network, one: one.run(network))
        expected = replay.remember(batch)
        ran.clear()
        for key in layers:
            weight = model.get_submodule(key).weight
            kept = weight.clone()
            weight.mul_(0.5)
            found, calls = replay.again(batch, [key]), len(ran)
            ran.clear()
            assert torch.equal(found, batch.run(model)) and not torch.equal(found, expected)
            assert calls <= len(ran) and (key != layers[-1] or calls <= most * len(ran))
            ran.clear()
            weight.copy_(kept)
        assert torch.equal(batch.run(model), expected)
        assert all("forward" not in vars(module) for module in model.modules())
