"""PyTorch's operations on lists of tensors, one kernel for many on a graphics card, which type checkers do not know."""

from typing import Any

import torch

_torch: Any = torch
add, div, mul, sqrt = _torch._foreach_add, _torch._foreach_div, _torch._foreach_mul, _torch._foreach_sqrt
norm, clamp_min = _torch._foreach_norm, _torch._foreach_clamp_min
lerp_, mul_, sub_ = _torch._foreach_lerp_, _torch._foreach_mul_, _torch._foreach_sub_
