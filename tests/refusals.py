"""What the tests of bad requests share: a folder of things that are wrong, and what holds for every refusal."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from conftest import Polyad, Ran
from own_network import Own, write_own

OTHERS = """
import torch
from torch import nn

def only_activations():
    return nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Softmax(1))

def one_by_one():
    return nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.ReLU())

def raises():
    raise ValueError("no such file of mine")

def a_number():
    return 3

def nan_inputs():
    return [(torch.full((4, 1, 8, 8), float("nan")), torch.zeros(4, dtype=torch.long))] * 5
"""


@dataclass(frozen=True)
class Place:
    """A folder with a network, its weights, and files that are wrong in every way."""

    folder: Path
    own: Own

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)


def write_place(folder: Path) -> Place:
    """Fill a folder with what a request can go wrong with."""
    own = write_own(folder)
    (folder / "others.py").write_text(OTHERS)
    (folder / "broken.py").write_text("def build(:\n")
    state = load_file(own.weights)
    save_file(state | {"conv2.weight": torch.full_like(state["conv2.weight"], torch.nan)}, folder / "nan.safetensors")
    save_file(state | {"head.weight": torch.zeros(10, 99)}, folder / "shapes.safetensors")
    (folder / "corrupt.pth").write_bytes((folder / "mynet.pth").read_bytes()[:500])
    (folder / "text.safetensors").write_text("hello")
    (folder / "corrupt.npz").write_bytes(b"PK\x03\x04 not a zip after all")
    np.savez(folder / "numbers.npz", numbers=np.zeros(3))
    np.savez(folder / "unlabelled.npz", images=np.zeros((9, 8, 8), np.uint8))
    (folder / "garbage.json").write_text("{ this is no plan")
    (folder / "list.json").write_text("[1, 2]")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("keep")
    (folder / "empty").mkdir()
    return Place(folder, own)


def listing(folder: Path) -> dict[str, int]:
    """Every file, hidden ones too, with its size; what Python itself caches is left out."""
    return {str(path): path.stat().st_size for path in folder.rglob("*") if "__pycache__" not in str(path)}


def refused(polyad: Polyad, place: Place, arguments: list[str], *says: str) -> Ran:
    """Run it, and check all that holds for every refusal."""
    before = listing(place.folder)
    ran = polyad(*arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    (sentence,) = [line for line in ran.err.splitlines() if not line.startswith("note: ")]
    assert sentence.startswith("polyad: ") and sentence.endswith((".", "?")), ran.err
    for text in says:
        assert text in sentence, ran.err
    assert listing(place.folder) == before
    return ran


def compress(place: Place, **changes: str | None) -> list[str]:
    """A request that could be met, but for the changes; None leaves an option out, a list repeats it."""
    options: dict[str, str | None] = {
        "weights": str(place.own.weights),
        "data": "digits",
        "budget": "params=60%",
        "samples": "20",
        "forms": "svd",
        "out": place["small"],
    }
    options |= {name.replace("_", "-"): value for name, value in changes.items() if name != "model"}
    found = ["compress", changes.get("model") or place.own.model]
    for name, value in options.items():
        found += [] if value is None else [f"--{name}", value]
    return found
