"""`python -m aggregator.replay CASES.json`: recomputes rounds that another implementation has computed.

CASES.json names cases, each with a file of arrays beside it: `i_t*` the initial tensors, `u{r}_c{k}_t*` the update of
client k in round r, `n{r}` the examples of each, `e{r}_t*` what the other implementation made of them. One JSON
object a case is printed; the exit code is 1 unless all agree.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import Strategy
from aggregator.spool import FileSpool
from protos.tensors import Array, Parameters, Signature

TOLERANCE = 1e-5
FLOOR = 1e-3
"""Values smaller than this, in a tensor whose largest is 1, are compared absolutely: their digits are what float32 sums leave of them."""

Parts = dict[str, dict[str, Any]]
Params = Mapping[str, Any]


def _server(name: str) -> Callable[[Params], Parts]:
    renamed = {
        "eta": "learning_rate",
        "server_learning_rate": "learning_rate",
        "server_momentum": "momentum",
        "eta_l": None,
    }

    def parts(params: Params) -> Parts:
        named = {renamed.get(key, key): value for key, value in params.items()}
        return {"optimizer": {"name": name, **{key: value for key, value in named.items() if key}}}

    return parts


def _krum(params: Params) -> Parts:
    keep = params["num_clients_to_keep"]
    malicious = params["num_malicious_clients"]
    if keep:
        return {"aggregation": {"name": "multikrum", "malicious": malicious, "keep": keep}}
    return {"aggregation": {"name": "krum", "malicious": malicious}}


ALGORITHMS: Mapping[str, Callable[[Params], Parts]] = {
    "fedavg": lambda params: {},
    "fedavgm": _server("momentum"),
    "fedadagrad": _server("adagrad"),
    "fedadam": _server("adam"),
    "fedyogi": _server("yogi"),
    "fedmedian": lambda params: {"aggregation": {"name": "median"}},
    "fedtrimmedavg": lambda params: {"aggregation": {"name": "trimmed_mean", "trim": params["beta"]}},
    "krum": _krum,
    "multikrum": _krum,
    "bulyan": lambda params: {"aggregation": {"name": "bulyan", "malicious": params["num_malicious_clients"]}},
}


class BadCase(Exception):
    """A case that can't be replayed; one line for whoever wrote it."""


def replay(case: Mapping[str, Any], folder: Path) -> float:
    """The largest error of all rounds, relative to the size of the value or to `FLOOR` of the tensor's largest. Raises `BadCase`."""
    if case["algorithm"] not in ALGORITHMS:
        raise BadCase(f"{case['name']}: no algorithm {case['algorithm']!r}; known are {', '.join(ALGORITHMS)}.")
    try:
        arrays = np.load(folder / case["file"], allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadCase(f"{case['name']}: {case['file']} can't be read: {error}") from error
    clients = {"cohort": {"min_clients": case["clients"]}, "faults": {"quorum": case["clients"]}}
    try:
        config = StrategyConfig.model_validate(clients | ALGORITHMS[case["algorithm"]](case["params"]))
    except (KeyError, ValueError) as error:
        raise BadCase(f"{case['name']}: its params don't fit {case['algorithm']}: {error}") from error
    errors = [
        _relative_error(model[name], arrays[f"e{number}_{name}"])
        for number, model in enumerate(_rounds(config, arrays, case["rounds"], case["tensors"]), start=1)
        for name in model
    ]
    return max(errors)


def _rounds(config: StrategyConfig, arrays: Mapping[str, Array], rounds: int, tensors: int) -> Iterator[Parameters]:
    model: Parameters = {f"t{i}": arrays[f"i_t{i}"] for i in range(tensors)}
    signature = Signature.of(model)
    strategy = Strategy(config, signature)
    for number in range(1, rounds + 1):
        examples = arrays[f"n{number}"]
        aggregation = strategy.begin(RoundContext(number, 0, signature, model, len(examples), FileSpool))
        for client, count in enumerate(examples):
            update = {name: arrays[f"u{number}_c{client}_{name}"] for name in model}
            aggregation.add(Update(f"{client:06d}", update, int(count), {}))
        model = aggregation.next_model(model, aggregation.result())
        aggregation.close()
        yield model


def _relative_error(ours: Array, theirs: Array) -> float:
    if not theirs.size:
        return 0.0
    scale = np.maximum(np.abs(theirs), FLOOR * np.abs(theirs).max(initial=np.finfo(np.float32).tiny))
    return float((np.abs(ours.astype(np.float64) - theirs) / scale).max())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aggregator.replay", description=__doc__.split(":", 1)[1].strip())
    parser.add_argument("cases", type=Path, help="a CASES.json")
    path = parser.parse_args().cases
    try:
        cases = json.loads(path.read_text())["cases"]
        all_ok = True
        for case in cases:
            error = replay(case, path.parent)
            all_ok &= error <= TOLERANCE
            sys.stdout.write(
                json.dumps({"name": case["name"], "max_rel_error": error, "ok": error <= TOLERANCE}) + "\n"
            )
    except BadCase as error:
        sys.exit(f"replay: {error}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"replay: {path} is no file of cases: {type(error).__name__}: {error}")
    return 0 if all_ok else 1


if __name__ == "__main__":
    sys.exit(main())
