"""Optimizers that go without torch's compiler: its import takes seconds and much memory.

torch's own import it to tell it which of their functions it shall not compile.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


def _plain(method: Any) -> Any:
    return inspect.unwrap(method)


class Uncompiled(Optimizer):
    """What a compiled function may not call."""

    add_param_group = _plain(Optimizer.add_param_group)
    load_state_dict = _plain(Optimizer.load_state_dict)
    state_dict = _plain(Optimizer.state_dict)
    zero_grad = _plain(Optimizer.zero_grad)


class AdamW(Uncompiled, torch.optim.AdamW):
    step = torch.no_grad()(_plain(torch.optim.AdamW.step))


class LBFGS(Uncompiled, torch.optim.LBFGS):
    pass
