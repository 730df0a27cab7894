"""The phases of `client_agent.methods` on PyTorch modules and optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from client_agent.methods import Arrays, Phase


class Correction:
    """Corrects the gradients of a module's parameters, between `backward()` and `optimizer.step()`.

    The parameters' names must be those of the app's tensors; buffers, and parameters without a gradient, are left alone.
    """

    def __init__(self, phase: Phase, module: nn.Module) -> None:
        self._phase = phase
        places = {name: index for index, name in enumerate(phase.names)}
        self._terms = [
            (parameter, name in phase.frozen, *self._of(places[name], parameter))
            for name, parameter in module.named_parameters()
            if name in places
        ]

    def _of(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Anchor and offset of a tensor, on its device."""
        phase = self._phase
        anchor = torch.as_tensor(phase.anchor[index]).to(like) if phase.pull else None
        offset = phase.offsets[index] if phase.offsets else None
        return anchor, None if offset is None else torch.as_tensor(offset).to(like)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Call once for each step."""
        self._phase.rates += float(optimizer.param_groups[0]["lr"])
        with torch.no_grad():
            for parameter, frozen, anchor, offset in self._terms:
                if parameter.grad is None:
                    continue
                if frozen:
                    parameter.grad = None
                    continue
                if anchor is not None:
                    parameter.grad.add_(parameter - anchor, alpha=self._phase.pull)
                if offset is not None:
                    parameter.grad.add_(offset)


def contrastive_loss(
    z: torch.Tensor, z_global: torch.Tensor, z_previous: torch.Tensor, temperature: float
) -> torch.Tensor:
    """ℓ_con of MOON (equation 3), the mean over a batch; shapes (examples, features). Multiply by `phase.contrast.mu`."""
    to_global = nn.functional.cosine_similarity(z, z_global, dim=1, eps=1e-12)
    to_previous = nn.functional.cosine_similarity(z, z_previous, dim=1, eps=1e-12)
    return nn.functional.softplus((to_previous - to_global) / temperature).mean()


def load(module: nn.Module, phase: Phase) -> None:
    """Put `phase.parameters` into a module whose `state_dict` has the app's tensors, by name."""
    state = module.state_dict()
    with torch.no_grad():
        for name, array in zip(phase.names, phase.parameters, strict=True):
            state[name].copy_(torch.as_tensor(array))


def unload(module: nn.Module, names: Sequence[str]) -> Arrays:
    """The tensors `names` of a module, as arrays in that order: for `phase.end`."""
    state = module.state_dict()
    return [state[name].detach().cpu().numpy().copy() for name in names]
