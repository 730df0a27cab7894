"""What server optimisers share: one pass over the model in blocks, with their state updated in place.

The difference between aggregate and current model, Δ, is the negative of a gradient (Reddi et al. 2021,
"pseudo-gradient"). An optimiser says what a block of it becomes; everything else is here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from protos.tensors import Parameters, Signature

BLOCK = 32_768
"""Elements worked on at a time: model, state and temporaries of a block fit in the processor's second-level cache."""

Block = NDArray[Any]


class BlockwiseOptimizer(ABC):
    """State: `slots` arrays of the size of the model, and the number of steps taken.

    float32 models have float32 state, float64 ones float64; float16 ones are worked on in float32. Integer and bool
    tensors are the aggregate's.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self, signature: Signature, *, initial: float = 0.0) -> None:
        """`initial` fills the last slot, which holds second moments where there are any."""
        self._floats = [t for t in signature.tensors if t.dtype.startswith("float")]
        self._steps = 0
        self._state: dict[str, tuple[Block, ...]] = {}
        for spec in self._floats:
            dtype = np.dtype("f8" if spec.dtype == "float64" else "f4")
            arrays = [np.zeros(math.prod(spec.shape), dtype) for _ in self.slots]
            if arrays:
                arrays[-1][:] = initial
            self._state[spec.name] = tuple(arrays)

    @abstractmethod
    def transform(self, delta: Block, state: tuple[Block, ...], scratch: Block, steps: int) -> None:
        """Turn `delta` into what is added to the current model, in place; update `state` in place. `scratch` has delta's shape and dtype.

        `steps` counts from 1.
        """

    def step(self, current: Parameters, aggregate: Parameters) -> Parameters:
        self._steps += 1
        model = dict(aggregate)
        for spec in self._floats:
            model[spec.name] = self._step_tensor(spec.name, current[spec.name], aggregate[spec.name])
        return model

    def _step_tensor(self, name: str, current: Block, aggregate: Block) -> Block:
        work = np.dtype("f8" if current.dtype == np.float64 else "f4")
        flat_current, flat_aggregate = current.reshape(-1), aggregate.reshape(-1)
        result = np.empty_like(flat_current)
        delta, scratch = np.empty(BLOCK, work), np.empty(BLOCK, work)
        for start in range(0, result.size, BLOCK):
            block = slice(start, min(start + BLOCK, result.size))
            size = block.stop - start
            d = delta[:size]
            np.subtract(flat_aggregate[block], flat_current[block], out=d, dtype=work)
            self.transform(d, tuple(slot[block] for slot in self._state[name]), scratch[:size], self._steps)
            d += flat_current[block]
            result[block] = d
        return result.reshape(current.shape)

    def state(self) -> Parameters:
        arrays = {
            f"{slot}/{name}": array
            for name, state in self._state.items()
            for slot, array in zip(self.slots, state, strict=True)
        }
        return {**arrays, "steps": np.array(self._steps, np.int64)}

    def load(self, state: Parameters) -> None:
        for name, arrays in self._state.items():
            for slot, array in zip(self.slots, arrays, strict=True):
                array[:] = state[f"{slot}/{name}"]
        self._steps = int(state["steps"])
