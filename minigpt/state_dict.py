"""A model's weights as named tensors, and back: into a model whole, or not at all.

Where they are kept is not known here: folder.py finds them, checkpoint.py reads them.
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
"""So many parameters are built without asking whether the checkpoint has as many: a misfit is then told by name."""


def model_tensors(model: GPT) -> dict[str, Tensor]:
    """Returns a model's weights by name, each once: a tied output projection is the embedding's."""
    return dict(model.named_parameters())


def make_model(config: GPTConfig, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> GPT:
    """Returns a model with these weights, ready to use (in evaluation mode). Errors as `load_weights`."""
    check_size(config, tensors)
    model = GPT(config).to(device)
    load_weights(model, tensors)
    return model.eval()


def check_size(config: GPTConfig, tensors: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError, before such a model is built, if the settings describe a far larger one than is there."""
    described, stored = parameter_count(config), sum(tensor.numel() for tensor in tensors.values())
    if config.n_layer > len(tensors) or described > 2 * stored + SMALL:
        raise misfit(f"{described:,} parameters in the settings, {stored:,} in the checkpoint")


def load_weights(model: GPT, tensors: Mapping[str, Tensor], *, finite: bool = True) -> None:
    """Copies tensors, named as `model_tensors` names them, into a model.

    Args:
        model: the model.
        tensors: its weights.
        finite: whether every number must be finite; to look into a training that went wrong, it need not.

    Raises:
        CheckpointError: if one is missing, surplus, of another shape or not finite; nothing has been copied then.
    """
    parameters = model_tensors(model)
    expected, found = ({name: _form(tensor) for name, tensor in part.items()} for part in (parameters, tensors))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise misfit(f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'nothing')}")
    if finite and (bad := first_bad_tensor(tensors)):
        raise CheckpointError(
            "The checkpoint holds a number that is not finite",
            got=bad,
            remedy="Mini-GPT saves no such weights; take another checkpoint, or a copy.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def first_bad_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """Returns the name of the first tensor that holds a number that is not finite; None if there is none."""
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)


def is_finite(tensor: Tensor) -> bool:
    """Returns whether every number of a tensor is finite: its least and its greatest are, and neither is NaN.

    124 million numbers take 0.02 s on a core; `isfinite().all()`, which makes a mask of them, takes 0.6 s.
    """
    least, greatest = tensor.detach().aminmax()
    return math.isfinite(least) and math.isfinite(greatest)


def misfit(got: str) -> CheckpointError:
    """Returns the error for a checkpoint that is not of the model that its run describes."""
    return CheckpointError(
        "The checkpoint does not fit the run's model",
        got=got,
        remedy="Use the config.toml that the checkpoint was made with.",
    )


def _form(tensor: Tensor) -> str:
    """Returns a tensor's shape, and its number format if it is not that of all our weights."""
    return f"{tuple(tensor.shape)}" + ("" if tensor.dtype == torch.float32 else f" of {tensor.dtype}")
