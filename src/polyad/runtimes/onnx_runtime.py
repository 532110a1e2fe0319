"""ONNX Runtime on the processor, with all of its own optimisations of the graph."""

from copy import deepcopy
from importlib.metadata import version
from importlib.util import find_spec
from time import perf_counter

import torch
from torch import nn

from polyad.batches import Batch
from polyad.exporters.base import inputs_of
from polyad.exporters.onnx import PACKAGES, to_onnx
from polyad.runtimes.base import RUNTIMES, Pass, Runtime, processor


def prepare(module: nn.Module, batch: Batch, threads: int) -> Pass:
    """A session for inputs of exactly this size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # the threads of a session that waits for its turn would take the cores from the one that runs
    options.add_session_config_entry("session.force_spinning_stop", "1")
    data = to_onnx(deepcopy(module).cpu(), batch.to("cpu"), any_batch=False)
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}
    feed = {name: tensor.cpu().numpy() for name, tensor in inputs_of(batch).items() if name in wanted}

    def once() -> float:
        start = perf_counter()
        session.run(None, feed)
        return perf_counter() - start

    return once


def _version() -> str:
    return f"onnxruntime {version('onnxruntime')}, torch {torch.__version__}"


def _lacks() -> str:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    return f"it needs {' and '.join(missing)}: pip install polyad[export]" if missing else ""


RUNTIMES.register(
    "onnxruntime",
    Runtime(
        name="onnxruntime",
        summary="ONNX Runtime on the processor",
        version=_version,
        lacks=_lacks,
        prepare=prepare,
        place=processor,
    ),
)
