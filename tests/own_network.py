"""A person's own network in a file of their own, trained on the digits, for the tests of the command line."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from polyad.data import open_data
from polyad.models import build_model

CODE = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two convolutions and a linear layer: (n, 1, 8, 8) -> (n, 10)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 16, 10)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


def build():
    return Net()
'''


@dataclass(frozen=True)
class Own:
    """A folder with mynet.py and its trained weights."""

    folder: Path

    @property
    def model(self) -> str:
        return f"{self.folder / 'mynet.py'}:build"

    @property
    def weights(self) -> Path:
        return self.folder / "mynet.safetensors"


def write_own(folder: Path) -> Own:
    """Write the file, train the network for a second, save its weights in two formats."""
    own = Own(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (folder / "mynet.py").write_text(CODE)
    torch.manual_seed(0)
    net = build_model(own.model).train()
    items = open_data("digits#train").splits["train"]
    images, labels = (torch.stack([torch.as_tensor(item[part]) for item in items]) for part in (0, 1))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(150):
        batch = torch.randperm(len(labels), generator=torch.Generator().manual_seed(step))[:128]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    save_file(net.state_dict(), own.weights)
    torch.save({"state_dict": net.state_dict()}, folder / "mynet.pth")
    return own
