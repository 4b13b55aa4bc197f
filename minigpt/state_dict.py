"""A model's weights as named tensors, and back into a model: all of them, or none.

Finding and reading them is the job of runs/folder.py and runs/checkpoint.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import CheckpointError
from minigpt.model import GPT
from minigpt.model.accounting import parameter_count

SMALL = 50_000_000
"""Models up to this many parameters are built without comparing sizes first: the error can then name the tensor."""


def model_tensors(model: GPT) -> dict[str, Tensor]:
    """Returns a model's weights by name, each once: a tied output projection is the embedding."""
    return dict(model.named_parameters())


def make_model(config: GPTConfig, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> GPT:
    """Returns a model with these weights, in evaluation mode. Errors as `load_weights`."""
    check_size(config, tensors)
    model = GPT(config).to(device)
    load_weights(model, tensors)
    return model.eval()


def check_size(config: GPTConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError, before the model is built, if the settings describe a far larger one than was saved."""
    described, stored = parameter_count(config), sum(tensor.numel() for tensor in tensors.values())
    if config.n_layer > len(tensors) or described > 2 * stored + SMALL:
        raise misfit(f"{described:,} parameters in the settings, {stored:,} in the checkpoint")


def load_weights(model: GPT, tensors: Mapping[str, Tensor], *, finite: bool = True) -> None:
    """Copies tensors, named as `model_tensors` names them, into a model.

    Args:
        model: the model.
        tensors: its weights.
        finite: whether every number must be finite; not when inspecting a training that went wrong.

    Raises:
        CheckpointError: if one is missing, unexpected, of another shape or not finite; nothing has been copied then.
    """
    parameters = model_tensors(model)
    expected, found = ({name: _form(tensor) for name, tensor in part.items()} for part in (parameters, tensors))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise misfit(f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}")
    if finite and (bad := first_bad_tensor(tensors)):
        raise CheckpointError(
            "The checkpoint contains a non-finite number",
            got=bad,
            remedy="Mini-GPT never saves such weights; use another checkpoint or a copy.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def first_bad_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first tensor with a non-finite number; None if there is none."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Returns whether every number of a tensor is finite, by its minimum and maximum.

    124 million numbers take 0.02 s on a core; `isfinite().all()`, which builds a mask, takes 0.6 s.
    """
    least, greatest = tensor.detach().aminmax()
    return math.isfinite(least) and math.isfinite(greatest)


def misfit(got: str) -> CheckpointError:
    """Returns the error for a checkpoint that does not match the settings of its run."""
    return CheckpointError(
        "The checkpoint does not match the run's settings",
        got=got,
        remedy="Use the config.toml that the checkpoint was made with.",
    )


def _form(tensor: Tensor) -> str:
    """Returns a tensor's shape, and its dtype unless float32."""
    return f"{tuple(tensor.shape)}" + ("" if tensor.dtype == torch.float32 else f" of {tensor.dtype}")
