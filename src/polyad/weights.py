"""Read trained weights from a file, never executing code, and put them into a network."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from polyad.errors import ModelError, NumericalError
from polyad.llama2c_file import check_sizes, read_arrays

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the state dict inside a checkpoint."""

PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""

LLAMA2C = ".bin"

_SHOWN = 3


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their keys, on the CPU.

    Args:
        path: `.pth .pt .th` (torch.save), `.safetensors`, `.npz` or `.bin` (llama2.c). A dict around the state dict and
            a prefix that DataParallel or torch.compile adds to all keys are taken off.

    Raises:
        ModelError: the file is missing, damaged, of another format, or could only be read by executing code.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelError(f"{path} is not a known format of weights: expected {', '.join(_READERS)}.")
    if not path.is_file():
        raise ModelError(f"There is no file {path}; check the path of the weights.")
    try:
        found = reader(path)
    except ModelError:
        raise
    except PermissionError:
        raise ModelError(f"{path} cannot be read: permission denied.") from None
    except Exception as error:  # a damaged file can raise anything: KeyError, EOFError, BadZipFile, UnpicklingError ...
        detail = str(error).strip().splitlines()
        cause = f"{type(error).__name__}: {detail[0]}" if detail else type(error).__name__
        raise ModelError(f"{path} is damaged or not a {path.suffix} file ({cause}); get it once more.") from error
    return _without_prefix(_tensors(found, path))


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a network with the weights of a file; every key and every shape must match.

    Counters of old batch norms (`num_batches_tracked`) may be missing in the file, and so may the second name of a tied
    weight.

    Args:
        model: filled in place, and left as it is where anything is wrong.
        path: as for `read_state_dict`.

    Raises:
        ModelError: the file cannot be read, or does not fit the network.
        NumericalError: a tensor holds NaN or infinity.
    """
    state = read_state_dict(path)
    if Path(path).suffix.lower() == LLAMA2C:
        check_sizes(Path(path), model)
    expected = model.state_dict(keep_vars=True)
    state |= _tolerated(expected, state)
    problems = _differences(expected, state)
    if problems:
        raise ModelError(
            f"{path} does not fit {type(model).__name__}: {'; '.join(problems)}. Choose the network that these weights"
            " were trained for, or the weights of this one."
        )
    for name, tensor in state.items():
        if tensor.is_floating_point() and not _finite(tensor):
            raise NumericalError(f"{name} in {path} holds NaN or infinity; use weights of a training that converged.")
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:  # the hooks of the user's own modules may ask for more
        raise ModelError(f"{path} could not be loaded into {type(model).__name__}: {error}") from error


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
            if damaged := archive.testzip():
                raise ModelError(f"{path} is damaged (checksum of {damaged}); copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        if blocked := re.search(r"GLOBAL ([\w.]+)", text):
            raise ModelError(
                f"{path} holds more than tensors ({blocked[1]}), and reading it would execute code, which Polyad never"
                " does: save model.state_dict() alone, best as .safetensors."
            ) from None
        if "TorchScript" in text:
            raise ModelError(f"{path} is a TorchScript program: save its state_dict() instead.") from None
        if isinstance(error, pickle.UnpicklingError):
            raise ModelError(
                f"{path} is damaged, or a pickle that only executing code could read, which Polyad never does: save"
                " model.state_dict() alone, best as .safetensors."
            ) from None
        raise


def _read_safetensors(path: Path) -> Any:
    return load_file(path, device="cpu")


def _read_npz(path: Path) -> Any:
    with path.open("rb") as file:
        found = np.load(file, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ModelError(f"{path} holds one unnamed array: save named ones with numpy.savez.")
        return {name: _from_numpy(name, found[name], path) for name in found.files}


def _from_numpy(name: str, array: np.ndarray, path: Path) -> Tensor:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError:
        raise ModelError(f"{name} in {path} is of type {array.dtype}, not an array of numbers.") from None


_READERS: dict[str, Callable[[Path], Any]] = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".th": _read_torch,
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    LLAMA2C: read_arrays,
}


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    """What is a tensor in the innermost dict of a checkpoint."""
    while isinstance(found, Mapping):
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} holds a {type(found).__name__}, not a state dict: save model.state_dict().")
    tensors = {str(key): value.detach() for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(map(str, list(found)[:_SHOWN])) or "none"
        raise ModelError(f"{path} holds no tensors at the top or under {', '.join(WRAPPERS)}; its keys: {keys}.")
    return tensors


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in (*PREFIXES, *PREFIXES):  # they may be nested, in either order
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    return tensors


def _tolerated(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For keys that a correct file may lack, what stands for them."""
    twins = {id(tensor): state[name] for name, tensor in expected.items() if name in state}
    found = {}
    for name, tensor in expected.items():
        if name in state:
            continue
        if id(tensor) in twins:
            found[name] = twins[id(tensor)]
        elif name.endswith("num_batches_tracked"):
            found[name] = tensor
    return found


def _differences(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What does not fit, the first few of each sort."""
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    wrong = []
    for name, tensor in expected.items():
        if name not in state or not isinstance(tensor, Tensor):
            continue
        came = state[name]
        if came.shape != tensor.shape:
            wrong.append(f"{name} expected {tuple(tensor.shape)}, came {tuple(came.shape)}")
        elif tensor.is_floating_point() and not came.is_floating_point():
            wrong.append(f"{name} expected floating-point numbers, came {came.dtype}")
    sorts = (("missing", missing), ("unexpected", unexpected), ("mismatched", wrong))
    return [f"{len(names)} {sort} ({_first(names)})" for sort, names in sorts if names]


def _finite(tensor: Tensor) -> bool:
    values = tensor.float() if tensor.element_size() == 1 else tensor  # torch does not look into 8-bit floats
    return bool(torch.isfinite(values).all())


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
