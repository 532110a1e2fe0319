"""What blocks of the student give beside what the same blocks of the original give, in one run of each.

Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, match one layer in the middle through a layer of its own;
here widths agree, so every block can be matched as it is.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from polyad.errors import ModelError
from polyad.outputs import outputs_tensor


class Features:
    """Inside `with`, first the teacher is to be run and then the student; then `errors` holds one for each block.

    Args:
        teacher, student: any networks with modules of these names; hooks stay on them until `close`.
        names: of modules; what gives no tensor, or one of another shape in the student, is left out.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, names: Sequence[str]) -> None:
        self.errors: list[Tensor] = []
        self._wanted: dict[str, deque[Tensor]] = defaultdict(deque)
        self._noting = False
        self._handles = [
            model.get_submodule(name).register_forward_hook(self._hook(name, note))
            for name in names
            for model, note in ((teacher, self._want), (student, self._compare))
        ]

    def __enter__(self) -> None:
        self.errors, self._noting = [], True
        self._wanted.clear()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._noting = False

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, note: Callable[[str, Tensor], None]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._noting:
                try:
                    note(name, outputs_tensor(output))
                except ModelError:
                    return

        return hook

    def _want(self, name: str, output: Tensor) -> None:
        self._wanted[name].append(output.detach().clone())  # what follows may work in place

    def _compare(self, name: str, output: Tensor) -> None:
        wanted = self._wanted[name].popleft() if self._wanted[name] else None
        if wanted is not None and wanted.shape == output.shape and output.is_floating_point():
            self.errors.append(relative_error(wanted.float(), output.float()))


def relative_error(wanted: Tensor, found: Tensor) -> Tensor:
    """sum (a - b)^2 / sum a^2."""
    return (found - wanted).square().sum() / wanted.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny)
