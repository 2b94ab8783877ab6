"""AdamW and SGD, in place on arrays. Weights of rank 2 or more decay; biases and normalisations do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fgonnx.fields import accepted

Array = npt.NDArray[Any]


class Optimiser(Protocol):
    """The interface of an optimiser."""

    #: Arrays to save in a checkpoint, by name.
    state: dict[str, Array]

    def update(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> None:
        """Update weights in place.

        Parameters
        ----------
        weights, gradients : mapping of str to array
            By name, of equal shapes.
        rate : float
            Learning rate.
        """


def _decay(weight: Array, rate: float, decay: float) -> None:
    if decay and weight.ndim > 1:
        weight *= 1 - rate * decay


@dataclass
class SGD:
    """Stochastic gradient descent with momentum (Sutskever et al., ICML 2013), decay decoupled from the gradient.

    Parameters
    ----------
    momentum : float
        Decay rate of the velocity.
    nesterov : bool
        Whether to use Nesterov momentum.
    decay : float
        Weights shrink by `rate * decay` in every step.
    state : dict of str to array
        State between steps, for checkpoints.

    Raises
    ------
    OptionError
        A number is out of range, or of another type.
    """

    momentum: float = 0.9
    nesterov: bool = True
    decay: float = 0.0
    state: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.momentum = accepted("momentum", self.momentum, float, least=0, most=1)
        self.nesterov = accepted("nesterov", self.nesterov, bool)
        self.decay = accepted("decay", self.decay, float, least=0)

    def update(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> None:
        """Update weights in place.

        Parameters
        ----------
        weights, gradients : mapping of str to array
            By name, of equal shapes.
        rate : float
            Learning rate.
        """
        for name, weight in weights.items():
            velocity = self.state.setdefault(f"velocity:{name}", np.zeros_like(weight))
            velocity *= self.momentum
            velocity += gradients[name]
            _decay(weight, rate, self.decay)
            weight -= rate * (gradients[name] + self.momentum * velocity if self.nesterov else velocity)


@dataclass
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019).

    Parameters
    ----------
    beta1, beta2 : float
        Decay rates of the running means of gradients and their squares.
    epsilon : float
        Added to the root of the mean square.
    decay : float
        Weights shrink by `rate * decay` in every step.
    state : dict of str to array
        State between steps, for checkpoints.

    Raises
    ------
    OptionError
        A number is out of range, or of another type.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.01
    state: dict[str, Array] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.beta1 = accepted("beta1", self.beta1, float, least=0, most=1)
        self.beta2 = accepted("beta2", self.beta2, float, least=0, most=1)
        self.epsilon = accepted("epsilon", self.epsilon, float, above=0)
        self.decay = accepted("decay", self.decay, float, least=0)

    def update(self, weights: Mapping[str, Array], gradients: Mapping[str, Array], rate: float) -> None:
        """Update weights in place.

        Parameters
        ----------
        weights, gradients : mapping of str to array
            By name, of equal shapes.
        rate : float
            Learning rate.
        """
        count = self.state.setdefault("count", np.zeros((), np.int64))
        count += 1
        steps = int(count)
        for name, weight in weights.items():
            g = gradients[name]
            mean = self.state.setdefault(f"mean:{name}", np.zeros_like(weight))
            square = self.state.setdefault(f"square:{name}", np.zeros_like(weight))
            mean += (1 - self.beta1) * (g - mean)
            square += (1 - self.beta2) * (g * g - square)
            _decay(weight, rate, self.decay)
            root = np.sqrt(square / (1 - self.beta2**steps)) + self.epsilon
            weight -= rate / (1 - self.beta1**steps) * mean / root
