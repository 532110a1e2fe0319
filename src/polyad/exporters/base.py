"""What an exporter is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten_with_path

from polyad.batches import Batch
from polyad.errors import ExportError
from polyad.registry import Registry

Run = Callable[[Batch], np.ndarray]


@dataclass(frozen=True)
class Exporter:
    """One format of files that other programs run.

    Attributes:
        name: as on the command line.
        summary: one line.
        suffix: of its files.
        packages: what has to be installed.
        write: network in evaluation mode and a batch -> the bytes of the file, for any number of samples.
        load: those bytes -> a function that runs what they hold on a batch and gives the first output.
    """

    name: str
    summary: str
    suffix: str
    packages: tuple[str, ...]
    write: Callable[[nn.Module, Batch], bytes]
    load: Callable[[bytes], Run]


EXPORTERS: Registry[Exporter] = Registry("export format", "polyad.exporters")


def check_installed(what: str, packages: Sequence[str]) -> None:
    """Raise ExportError for packages that are not there."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ExportError(f"{what} needs {' and '.join(missing)}: pip install polyad[export]")


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """The input tensors of a batch under the names that they get in a file: input, input_1 ... or their own."""
    found: dict[str, Tensor] = {}
    for path, leaf in tree_flatten_with_path((batch.args, batch.kwargs))[0]:
        if not isinstance(leaf, Tensor):
            continue
        keys = (getattr(step, "key", None) for step in path)
        own = next((key for key in keys if isinstance(key, str)), "")
        name = own or "input"
        found[name if name not in found else f"{name}_{len(found)}"] = leaf
    return found
