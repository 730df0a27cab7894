"""What each update of a round looked like, from which the heatmap and the warnings about anomalies are made.

No update is kept. Of each there remain the length of its step w_k − w from the global model, the largest size of a
coordinate of the step, and a sketch: a random linear projection of the step on `WIDTH` numbers, the same for all clients
of a round, from which angles between steps are estimated. It is a count sketch (Charikar, Chen and Farach-Colton,
"Finding frequent items in data streams", 2002) with one hash for a row of `WIDTH` coordinates: a row is multiplied by
random signs, rotated by a random number of places, and added. Coordinates of a row never collide, those of two rows do
with probability 1/WIDTH, and it is computed by additions of whole rows, at the speed of the cache.

Error: E⟨Sx, Sy⟩ = ⟨x, y⟩ and Var⟨Sx, Sy⟩ ≤ (‖x‖²‖y‖² + ⟨x, y⟩²) / WIDTH, as for independent signs. With the sketches' own
norms in the denominator, the estimate of a cosine c is off by (1 − c²) / √WIDTH as root mean square: by 0.016 at most for
4,096, of which 0.05 is three times as much. 1,024 float32 would be off by 0.031, and by more than 0.05 one time in nine.
So that what is kept is as small as those, `pack` rounds each number to a byte. That adds less than 0.001, or 0.01 where
few coordinates outweigh all others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core import kernels
from protos.tensors import Array, Signature

Sketch = NDArray[np.float32]

WIDTH = 4_096
CHUNK = 32 * WIDTH
LEVELS = 127

ANOMALOUS_Z = 3.5
"""Of robust z-scores: Iglewicz and Hoaglin, "How to detect and handle outliers" (1993)."""
ANOMALOUS_RATIO = 1.25
"""Of a step's length to the median: a cohort of equals has a z-score of any size for a difference of no matter."""
ANOMALOUS_DROP = 0.1
"""Of a cosine below the median: twice what the sketch may be off by."""


@dataclass(frozen=True, slots=True)
class UpdateStatistics:
    """Of the step w_k − w over all floating tensors."""

    norm: float
    """L2. Infinite if a coordinate is beyond float32."""
    largest: float
    """The largest size of a coordinate."""
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """One update beside the others of its round. Cosines and z-scores are None where they have no meaning."""

    norm_ratio: float | None
    """To the round's median."""
    cosine_to_aggregate: float | None
    z_norm: float | None
    z_cosine: float | None
    flagged: bool
    reason: str
    """For people, why it is flagged; empty if it isn't."""


@dataclass(frozen=True, slots=True)
class RoundStatistics:
    """The updates of a round, compared."""

    clients: Mapping[str, ClientStatistics]

    @classmethod
    def of(cls, updates: Mapping[str, UpdateStatistics], aggregate: Sketch) -> RoundStatistics:
        """`aggregate` is the sketch of the aggregate's step."""
        ids = sorted(updates)
        sketches = np.array([updates[k].sketch for k in ids], np.float32).reshape(len(ids), WIDTH)
        norms = [updates[k].norm for k in ids]
        to_aggregate = cosines(sketches, aggregate[np.newaxis])[:, 0].tolist()
        return cls(dict(zip(ids, _compared(norms, to_aggregate), strict=True)))


class Sketcher:
    """Measures the updates of one round, all with the same projection. `seed` makes it repeatable.

    One with another seed for each round keeps clients from learning which steps would look alike.
    """

    def __init__(self, signature: Signature, seed: int | Sequence[int], *, compiled: bool | None = None) -> None:
        """`compiled`: whether to use numba if it is installed; None leaves it to the size. Results agree to rounding."""
        if compiled is None:
            compiled = signature.num_parameters >= kernels.WORTH_COMPILING
        self.kernels = kernels.load(compiled=compiled)
        self.first_rows: dict[str, int] = {}
        rows = 0
        for spec in signature.tensors:
            if spec.dtype.startswith("float"):
                self.first_rows[spec.name] = rows
                rows += -(-math.prod(spec.shape) // WIDTH)
        random = np.random.SeedSequence(seed).generate_state(WIDTH + rows).astype(np.uint32)
        self.signs = _sign(random[:WIDTH])
        self.flips = _sign(random[WIDTH:])
        self.rotations = (random[WIDTH:] % np.uint32(WIDTH)).astype(np.int64)

    def observe(self, current: Mapping[str, Array]) -> Observation:
        """Of an update to come, to be passed to `WeightedMean.add`. `current` is the global model that the client was given."""
        return Observation(self, current)

    def measure(self, parameters: Mapping[str, Array], current: Mapping[str, Array]) -> UpdateStatistics:
        """For rules that don't sum."""
        observation = self.observe(current)
        for name in self.first_rows:
            values = parameters[name].reshape(-1)
            for start in range(0, values.size, CHUNK):
                observation(name, start, values[start : start + CHUNK])
        return observation.statistics()


class Observation:
    """Takes in one update, chunk by chunk; each begins at a multiple of `WIDTH` in its tensor."""

    def __init__(self, sketcher: Sketcher, current: Mapping[str, Array]) -> None:
        self._sketcher = sketcher
        self._current = current
        self._squares = self._largest = 0.0
        self._sketch = np.zeros(WIDTH, np.float32)

    def __call__(self, name: str, start: int, chunk: Array) -> None:
        sketcher = self._sketcher
        values, current = _single(chunk, self._current[name].reshape(-1)[start : start + chunk.size])
        first = sketcher.first_rows[name] + start // WIDTH
        rows = slice(first, first - (-chunk.size // WIDTH))
        with np.errstate(over="ignore", invalid="ignore"):  # a step beyond float32 has an infinite norm, and is flagged
            squares, largest = sketcher.kernels.observe(
                values, current, sketcher.signs, sketcher.rotations[rows], sketcher.flips[rows], self._sketch
            )
        self._squares += squares
        self._largest = max(self._largest, largest)

    def statistics(self) -> UpdateStatistics:
        return UpdateStatistics(math.sqrt(self._squares), self._largest, self._sketch)


def pack(sketch: Sketch) -> bytes:
    """`WIDTH` + 4 bytes, to be kept: the largest size as float32, and each number as a share of it in 254 steps."""
    largest = np.abs(sketch).max(initial=np.float32(0))
    if not np.finfo(np.float32).smallest_normal <= largest < np.inf:  # a share of less is none of a float32
        return bytes(4 + sketch.size)
    shares = np.rint(sketch.astype(np.float64) * (LEVELS / float(largest))).astype(np.int8)
    return np.array(largest, "<f4").tobytes() + shares.tobytes()


def unpack(packed: bytes) -> Sketch:
    """The inverse, to rounding. A sketch that wasn't finite comes back as zeros: of no direction."""
    step = float(np.frombuffer(packed, "<f4", 1)[0]) / LEVELS
    return np.frombuffer(packed, np.int8, offset=4).astype(np.float32) * np.float32(step)


def cosines(ones: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """Estimated between the steps that sketches are of, shape (len(ones), len(others)). NaN where one has no direction."""
    return np.clip(_directions(ones) @ _directions(others).T, -1, 1)


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """0.6745 (x − median) / MAD, which is a z-score where the values are normal, and blind to outliers.

    Where more than half of the values are equal, the mean absolute deviation takes the place of the MAD, as Iglewicz and Hoaglin advise.
    """
    if not values.size:
        return values
    deviations = values - np.median(values)
    sizes = np.abs(deviations)
    scale = np.median(sizes) / 0.6745 or sizes.mean() * math.sqrt(math.pi / 2)
    z: NDArray[np.float64] = deviations / scale if scale else np.zeros_like(values)
    return z


def _compared(norms: list[float], to_aggregate: list[float]) -> list[ClientStatistics]:
    finite = [norm for norm in norms if math.isfinite(norm)]
    median = float(np.median(finite)) if finite else 0.0
    cosine_median = float(np.nanmedian(to_aggregate)) if any(map(math.isfinite, to_aggregate)) else 0.0
    each = zip(norms, to_aggregate, _z_of_finite(norms), _z_of_finite(to_aggregate), strict=True)
    return [_beside(norm, cosine, z_norm, z_cosine, median, cosine_median) for norm, cosine, z_norm, z_cosine in each]


def _beside(
    norm: float, cosine: float, z_norm: float | None, z_cosine: float | None, median: float, cosine_median: float
) -> ClientStatistics:
    reasons = []
    ratio = norm / median if median and z_norm is not None else None
    if z_norm is None:
        reasons.append("its norm is beyond float32")
    elif z_norm > ANOMALOUS_Z and norm > ANOMALOUS_RATIO * median:
        reasons.append(
            f"its norm is {ratio:.1f} times the median" if ratio else f"only its norm isn't 0, but {norm:.3g}"
        )
    if z_cosine is not None and z_cosine < -ANOMALOUS_Z and cosine < cosine_median - ANOMALOUS_DROP:
        reasons.append(f"its cosine to the aggregate is {cosine:.2f}, the median {cosine_median:.2f}")
    defined = cosine if math.isfinite(cosine) else None
    return ClientStatistics(ratio, defined, z_norm, z_cosine, bool(reasons), "; ".join(reasons))


def _z_of_finite(values: list[float]) -> list[float | None]:
    scores = iter(robust_z(np.array([value for value in values if math.isfinite(value)])).tolist())
    return [next(scores) if math.isfinite(value) else None for value in values]


def _directions(sketches: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = sketches.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    directed = np.isfinite(norms) & (norms > 0)
    return np.where(directed, wide, np.nan) / np.where(directed, norms, 1)


def _sign(random: NDArray[np.uint32]) -> NDArray[np.float32]:
    return np.where(random >> 31, np.float32(1), np.float32(-1)).astype(np.float32)


def _single(values: Array, current: Array) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as float32, so that their difference is right: of other dtypes it is taken first."""
    if values.dtype == current.dtype == np.float32:
        return np.require(values, requirements=["C", "A"]), np.require(current, requirements=["C", "A"])
    with np.errstate(over="ignore"):
        step = (values.astype(np.float64) - current).astype(np.float32)
    return step, np.zeros_like(step)
