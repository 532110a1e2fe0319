"""Stage 8: a compressed network as a folder, and back.

`plan.json` says which layers were replaced by what, `model.safetensors` holds the tensors under ordinary sub-module
keys. Loading builds the original architecture without memory (on the meta device), expands and swaps what the plan
names and fills it. No pickles; nothing named by the folder is executed.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from polyad.digests import digest
from polyad.errors import CheckpointError, PlanError
from polyad.expand import in_use, redo
from polyad.models import build_model
from polyad.naming import put
from polyad.rebuild import swap
from polyad.records import PLAN_VERSION, Plan
from polyad.slim import slim
from polyad.storage import owners

WEIGHTS, PLAN = "model.safetensors", "plan.json"


def save_network(model: nn.Module, plan: Plan, folder: Path) -> None:
    """Write `model.safetensors` and `plan.json` into an existing folder."""
    tensors, aliases = _distinct(model.state_dict())
    metadata = {"format": "pt", "sha256": digest(tensors), "aliases": json.dumps(aliases)}
    save_file(tensors, folder / WEIGHTS, metadata)
    _order_metadata(folder / WEIGHTS)
    write_plan(plan, folder / PLAN)
    shutil.copymode(folder / PLAN, folder / WEIGHTS)  # safetensors makes files that only their owner can read


def load_network(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The compressed network in evaluation mode.

    Args:
        folder: as Polyad wrote it.
        model: a network of the original class (its weights do not matter, it is not changed); needed where the original
            was not built from a specification that Polyad knows.

    Raises:
        CheckpointError: the folder is not Polyad's, is damaged, or does not fit its plan.
        PlanError: the plan cannot be read or does not fit the architecture.
    """
    folder = Path(folder)
    plan = read_plan(folder / PLAN)
    tensors = _read_tensors(folder / WEIGHTS)
    if model is not None:
        skeleton = deepcopy(model)
    else:
        skeleton = _architecture(plan, folder)
    skeleton = redo(skeleton, in_use(plan))
    swap(skeleton, plan.choices)
    slim(skeleton, plan.narrowed)
    ties = _ties(skeleton)
    try:
        skeleton.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{folder / WEIGHTS} does not fit {PLAN} beside it: {problem}") from None
    for first, *others in ties:
        for name in others:
            put(skeleton, name, skeleton.get_parameter(first))
    return skeleton.eval()


def write_plan(plan: Plan, path: str | Path) -> None:
    """Save a plan as indented JSON, to be edited by hand.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        Path(path).write_text(plan.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror}); name a file that can.") from None


def read_plan(path: str | Path) -> Plan:
    """Read a plan back.

    Raises:
        CheckpointError: there is no such file.
        PlanError: it is not a plan, or one of a newer Polyad.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise CheckpointError(
            f"{path} is not there or not readable, so {path.parent} is no folder of Polyad's."
        ) from None
    try:
        found = json.loads(text)
        version = found.get("version") if isinstance(found, dict) else None
        if isinstance(version, int) and version > PLAN_VERSION:
            raise PlanError(f"{path} has schema version {version}; this Polyad reads up to {PLAN_VERSION}: upgrade it.")
        return Plan.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top level"
        raise PlanError(f"{path} is not a plan: {where}: {first['msg']}.") from None
    except json.JSONDecodeError as error:
        raise PlanError(f"{path} is not JSON (line {error.lineno}: {error.msg}); it may be truncated.") from None


def _architecture(plan: Plan, folder: Path) -> nn.Module:
    """The original architecture; on the meta device where nothing in it is lost by that."""
    if not plan.model:
        raise CheckpointError(
            f"{folder} holds a network of your own class: pass it as load({str(folder)!r}, model=...)."
        )
    if ".py:" in plan.model:
        raise CheckpointError(
            f"{folder} was made from {plan.model}, and loading would run that file: if you trust it, say so with"
            f" --model {plan.model} on the command line or load(..., model=...) in Python."
        )
    with torch.device("meta"):
        skeleton = build_model(plan.model)
    saved = skeleton.state_dict().keys()
    if any(name not in saved for name, _ in skeleton.named_buffers()):
        return build_model(plan.model)  # buffers that no file holds need their values computed
    return skeleton


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, so {path.parent} cannot be loaded.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or not a safetensors file ({error}); copy or compress again."
        ) from None
    if metadata.get("sha256") != digest(tensors):
        raise CheckpointError(f"{path} does not hold what Polyad wrote (its checksum differs): copy or compress again.")
    for name, original in json.loads(metadata["aliases"]).items():
        tensors[name] = tensors[original]
    return tensors


def _distinct(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors that share no storage, and for the left-out names the ones they equal."""
    owner = owners(state)
    aliases = {name: first for name, first in owner.items() if name != first}
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
        if name not in aliases
    }
    return tensors, aliases


def _order_metadata(path: Path) -> None:
    """Sort the metadata, which safetensors writes in random order: the same network gives the same bytes.

    The file begins with the length of its header (8 bytes) and the header as JSON, filled up with spaces.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= length:  # longer only where names hold what JSON writes in several ways
            file.seek(8)
            file.write(text.ljust(length))


def _ties(model: nn.Module) -> list[list[str]]:
    """Groups of names that are one parameter."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
