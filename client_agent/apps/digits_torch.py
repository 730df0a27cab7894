"""App "digits-mlp" in PyTorch: the model of `digits_numpy`, with the same signature and the same initial weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from client_agent import methods
from client_agent.apps.datasets import Samples, digits
from client_agent.apps.digits_numpy import CLASSES, HIDDEN, INPUTS, TENSOR_NAMES, card, columns, initialise
from client_agent.apps.site import Site, SiteOptions
from client_agent.apps.training import Trainer
from client_agent.methods import Phase
from client_agent.sdk import App, Arrays, Context
from client_agent.torch_methods import contrastive_loss


class TorchMLP:
    """An `nn.Module` behind the loop of the built-in apps. `nn.Linear` keeps its weights as (outputs, inputs)."""

    def __init__(self, parameters: Arrays) -> None:
        self._module = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
        with torch.no_grad():
            for tensor, array in zip(self._module.parameters(), parameters, strict=True):
                tensor.copy_(torch.tensor(np.transpose(array)))

    def parameters(self) -> Arrays:
        return [np.ascontiguousarray(tensor.detach().numpy().T) for tensor in self._module.parameters()]

    def step(self, samples: Samples, learning_rate: float, phase: Phase | None = None) -> float:
        hidden = self.represent(samples)
        loss = total = self._loss(self._module[2](hidden), samples)
        if phase and (contrast := phase.contrast):
            with torch.no_grad():
                by_global, by_previous = (
                    TorchMLP(list(arrays)).represent(samples) for arrays in (contrast.anchor, contrast.previous)
                )
            total = loss + contrast.mu * contrastive_loss(hidden, by_global, by_previous, contrast.temperature)
        parameters = list(self._module.parameters())
        gradients = torch.autograd.grad(total, parameters)
        if phase:  # whose arrays have the layout of the app's tensors, not of PyTorch's
            phase.correct(self.parameters(), [gradient.numpy().T for gradient in gradients], learning_rate)
        with torch.no_grad():
            for tensor, gradient in zip(parameters, gradients, strict=True):
                tensor.sub_(gradient, alpha=learning_rate)
        return float(loss.item())

    def represent(self, samples: Samples) -> torch.Tensor:
        """What the hidden layer makes of the samples, shape (samples, HIDDEN)."""
        hidden: torch.Tensor = self._module[:2](torch.from_numpy(samples.features))
        return hidden

    def loss_and_accuracy(self, samples: Samples) -> tuple[float, float]:
        with torch.no_grad():
            logits = self._module(torch.from_numpy(samples.features))
        right = logits.argmax(dim=1) == torch.from_numpy(samples.labels)
        return float(self._loss(logits, samples).item()), float(right.float().mean().item())

    def _loss(self, logits: torch.Tensor, samples: Samples) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, torch.from_numpy(samples.labels))


def client_fn(context: Context) -> Trainer:
    torch.set_num_threads(1)  # A model this small is slower on more, and the sum's order would depend on the machine.
    return Trainer(Site.of(digits().shared, SiteOptions.parse(context.options)), initialise, TorchMLP)


app = App("digits-mlp", "1.0", "torch", client_fn, TENSOR_NAMES, methods=methods.ALL, columns=columns, card=card)
