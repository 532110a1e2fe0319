"""The networks of the table of forms: their weights, their calibration inputs, and which of their layers are fitted.

The last fifth of the inputs is held out. Of VDSR that is the fifth image, of stories260K the last stories.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accuracy import LOSSLESS, SEED, WEIGHTS

import polyad
from polyad.batches import Batch, as_batches
from polyad.data import calibration_alone, calibration_and_evaluation, loader
from polyad.models import ModelSource
from polyad.records import Site, Trace
from polyad.sites import stacked
from polyad.trace import trace

HELD_OUT = 0.2
CIFAR_IMAGES, IMAGENET_IMAGES = 500, 100
PATCH, PATCHES = 41, 8
"""Side of a patch of Set5, and how many of each image and scale."""

STACK_FORMS = ("svd", "spatial_svd", "tucker2", "cp", "stack_tucker", "stack_cp")

Opened = tuple[ModelSource, list[Batch]]


@dataclass(frozen=True)
class Network:
    """One line of the table.

    Attributes:
        name: of its JSON file, `forms_<name>.json`.
        title: for people.
        inputs: what it is calibrated on, in words.
        layers: which of its layers are fitted, in words.
        open: the folder with the data -> network and calibration batches.
        choose: the sites that are fitted.
        stacks: patterns of layers that are fitted as one site (`--stack`).
        forms: names of the forms; None for all.
    """

    name: str
    title: str
    inputs: str
    layers: str
    open: Callable[[Path], Opened]
    choose: Callable[[Sequence[Site]], list[Site]]
    stacks: tuple[str, ...] = ()
    forms: tuple[str, ...] | None = None

    def sites(self, source: ModelSource, batch: Batch) -> list[Site]:
        """What is fitted."""
        found: Trace = stacked(trace(source.module, batch.take(1)), self.stacks)
        return self.choose(found.sites)


def open_cifar(network: str) -> Callable[[Path], Opened]:
    """A ResNet and images of the training set, original pixels."""

    def opened(folder: Path) -> Opened:
        source = polyad.open_model(f"zoo:{network}", folder / WEIGHTS[network])
        data = polyad.open_data(f"npz:{folder / LOSSLESS[0]}", source.preprocessing)
        images, _ = calibration_and_evaluation(data, CIFAR_IMAGES, SEED)
        return source, as_batches(loader(images, 100))

    return opened


def open_mobilenet(folder: Path) -> Opened:
    source = polyad.open_model("zoo:mobilenet_v2_folded", folder / WEIGHTS["mobilenet_v2_folded"])
    data = polyad.open_data(f"npz:{folder / 'imagenet1k_sample/imagenet1k_sample.npz'}", source.preprocessing)
    return source, as_batches(loader(calibration_alone(data, IMAGENET_IMAGES, SEED), 20))


def open_vdsr(folder: Path) -> Opened:
    """Patches of the enlarged luminance; those of the last image are the fifth that is held out."""
    source = polyad.open_model("zoo:vdsr", folder / "vdsr/vdsr.npz")
    arrays, draw = np.load(folder / "vdsr/set5_y.npz"), np.random.default_rng(SEED)
    batches = []
    for name in ("baby", "bird", "butterfly", "head", "woman"):
        patches = []
        for scale in (2, 3, 4):
            image = arrays[f"{name}_x{scale}_lr"] / 255
            corners = draw.integers(0, np.array(image.shape) - PATCH + 1, (PATCHES, 2))
            patches += [image[y : y + PATCH, x : x + PATCH] for y, x in corners]
        batches.append(Batch((torch.from_numpy(np.stack(patches)).float()[:, None],)))
    return source, batches


def open_llama(folder: Path) -> Opened:
    source = polyad.open_model("zoo:llama2c", folder / "tinystories260k/stories260K.bin")
    text = f"text:{folder / 'tinystories260k/tinystories_valid_head.txt'}"
    (stories,) = polyad.open_data(text, source.preprocessing).splits.values()
    return source, as_batches(stories)


def kernels(sites: Sequence[Site]) -> list[Site]:
    """Every 3x3 layer."""
    return [site for site in sites if site.layer.kernel == (3, 3)]


def kernels_and_first_of_each_shape(sites: Sequence[Site]) -> list[Site]:
    """Every 3x3 convolution, and of the 1x1 ones the first of every shape."""
    seen, found = set(), []
    for site in sites:
        if site.layer.kernel == (3, 3) or (site.layer.kernel and site.layer.weight_shape not in seen):
            found.append(site)
        seen.add(site.layer.weight_shape)
    return found


def joined(sites: Sequence[Site]) -> list[Site]:
    """The stacks alone."""
    return [site for site in sites if site.members]


def queries(sites: Sequence[Site]) -> list[Site]:
    return [site for site in sites if site.name.endswith("attention.q")]


MATRICES = tuple(f"layers.*.attention.{part}" for part in "qkvo") + tuple(
    f"layers.*.mlp.{part}" for part in ("gate", "up", "down")
)
STAGES = ("layer1.*", r"re:layer2\.(0\.conv2|[1-9]\.conv.)", r"re:layer3\.(0\.conv2|[1-9]\.conv.)")
CIFAR = f"{CIFAR_IMAGES} images of the CIFAR-10 training set, original pixels"
SET5 = f"{15 * PATCHES} patches of {PATCH}x{PATCH} of Set5, enlarged luminance at scale 2, 3 and 4"
STORIES = "21 stories of the TinyStories validation set"

_ALL = (
    Network("vdsr", "VDSR", SET5, "all 20 layers, 3x3", open_vdsr, kernels),
    Network("resnet20", "ResNet-20", CIFAR, "all 19 3x3 layers", open_cifar("resnet20"), kernels),
    Network("llama2c", "stories260K", STORIES, "all 35 matrices of its 5 layers", open_llama, list),
    Network(
        "mobilenet_v2",
        "MobileNetV2",
        f"{IMAGENET_IMAGES} images of the ImageNet sample",
        "the stem, all 17 depthwise layers, and of the 34 1x1 convolutions the 19 with the first of every shape",
        open_mobilenet,
        kernels_and_first_of_each_shape,
    ),
    Network("resnet56", "ResNet-56", CIFAR, "all 55 3x3 layers", open_cifar("resnet56"), kernels),
    Network(
        "vdsr_stack",
        "VDSR, the 18 hidden layers",
        SET5,
        "one stack",
        open_vdsr,
        joined,
        ("residual_layer.*.conv",),
        STACK_FORMS,
    ),
    Network("llama2c_stacks", "stories260K, over its 5 layers", STORIES, "", open_llama, joined, MATRICES, STACK_FORMS),
    Network(
        "resnet20_stacks",
        "ResNet-20, layers of one shape in a stage",
        CIFAR,
        "",
        open_cifar("resnet20"),
        joined,
        STAGES,
        STACK_FORMS,
    ),
    Network(
        "llama2c_heads",
        "stories260K, heads of q",
        STORIES,
        "",
        open_llama,
        queries,
        (),
        ("svd", "stack_tucker/8", "stack_cp/8"),
    ),
)
NETWORKS = {network.name: network for network in _ALL}
"""In the order in which they are fitted."""
