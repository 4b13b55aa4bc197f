"""Optimizers: torch's own, each set up for a GPT.

Weight decay applies to matrices and embeddings, never to biases and gains. Parameters that need no gradient are not
trained. A new optimizer is a function and a line in `OPTIMIZERS`; it returns a list, since Muon takes only matrices
and leaves the rest to AdamW.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.config import OptimizerConfig
from minigpt.model.layers import Kind, parameter_kinds
from minigpt.state_dict import misfit


def adam(model: nn.Module, lr: float, config: OptimizerConfig) -> list[Optimizer]:
    """Adam (Kingma and Ba 2015); weight decay, if any, is added to the gradient."""
    return [_lean(torch.optim.Adam)(_decay_groups(model, config), lr=lr, **_adam_settings(config))]


def adamw(model: nn.Module, lr: float, config: OptimizerConfig) -> list[Optimizer]:
    """AdamW (Loshchilov and Hutter 2019): weight decay acts on the weights directly."""
    return [_lean(torch.optim.AdamW)(_decay_groups(model, config), lr=lr, **_adam_settings(config))]


def muon(model: nn.Module, lr: float, config: OptimizerConfig) -> list[Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside the blocks; AdamW for embeddings, head, biases and norms.

    Muon makes each matrix's update orthogonal. Its step is scaled to Adam's usual size (Liu et al. 2025), so that one
    learning rate serves both.
    """
    kinds = parameter_kinds(model)
    matrices = [p for name, p in _trained(model).items() if kinds[name] == "matrix"]
    rest = _decay_groups(model, config, {"embedding", "gain", "bias"})
    return [
        _lean(torch.optim.Muon)(
            matrices,
            lr=lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        _lean(torch.optim.AdamW)(rest, lr=lr, **_adam_settings(config)),
    ]


OPTIMIZERS = {
    "adam": adam,
    "adamw": adamw,
    "muon": muon,
}

_ADAMS = ("step", "exp_avg", "exp_avg_sq")
STATE_KEYS = {
    "Adam": _ADAMS,
    "AdamW": _ADAMS,
    "Muon": ("momentum_buffer",),
}
"""The state that torch's optimizers have for each parameter."""


def make_optimizers(model: nn.Module, lr: float, config: OptimizerConfig) -> list[Optimizer]:
    """Returns the optimizers that together train every parameter of the model."""
    return OPTIMIZERS[config.name](model, lr, config)


def set_lr(optimizers: list[Optimizer], lr: float) -> None:
    """Sets the learning rate of all optimizers."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _decay_groups(
    model: nn.Module, config: OptimizerConfig, of: Container[Kind] = get_args(Kind)
) -> list[dict[str, Any]]:
    """Returns the trained parameters of these kinds, in a group with weight decay and one without."""
    kinds = parameter_kinds(model)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in _trained(model).items():
        if kinds[name] in of:
            groups[kinds[name] in ("matrix", "embedding")].append(parameter)
    return [
        {"params": groups[True], "weight_decay": config.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _lean(kind: type[Optimizer]) -> type[Any]:
    """Returns a torch optimizer whose methods do not import torch's compiler.

    torch decorates them with `_disable_dynamo`, which imports the compiler at the first call: 74 MB and 0.8 s in every
    process, as long as 2 to 10 steps of the presets. Steps themselves take the same time.
    """
    plain = {
        name: getattr(getattr(kind, name), "__wrapped__", getattr(kind, name)) for name in ("add_param_group", "step")
    }
    return type(kind.__name__, (kind,), {name: torch.no_grad()(method) for name, method in plain.items()})


def _adam_settings(config: OptimizerConfig) -> dict[str, Any]:
    # The fused kernel updates 6.9 M parameters in 1.7 ms on two cores; the plain one takes 8.9 ms.
    return {"betas": (config.beta1, config.beta2), "eps": config.eps, "fused": True}


def optimizer_tensors(model: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Returns the optimizers' state as named tensors, `exp_avg/h.0.attn.c_attn.weight` for instance."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{key}/{names[parameter]}": torch.as_tensor(value)
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def load_optimizer_tensors(model: nn.Module, optimizers: list[Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Restores what `optimizer_tensors` returned, into optimizers made the same way for the same model.

    Raises:
        CheckpointError: if a tensor is missing, unexpected or of another shape; nothing is restored then. Before the
            first step there are none.
    """
    owners = {p: o for o in optimizers for group in o.param_groups for p in group["params"]}
    places = {
        f"{key}/{name}": (owners[parameter], parameter, key)
        for name, parameter in _trained(model).items()
        for key in STATE_KEYS[type(owners[parameter]).__name__]
    }
    expected = {label: () if key == "step" else tuple(p.shape) for label, (_, p, key) in places.items()}
    found = {label: tuple(tensor.shape) for label, tensor in tensors.items()}
    for label in sorted(expected.keys() | found.keys()) if found else ():
        if found.get(label) != expected.get(label):
            raise misfit(f"{label}: {found.get(label, 'missing')}, expected {expected.get(label, 'nothing')}")
    for label, tensor in tensors.items():
        owner, parameter, key = places[label]
        # A copy is aligned as torch aligns it; a tensor read from a file may not be.
        owner.state[parameter][key] = tensor.to(parameter.device, copy=True)
