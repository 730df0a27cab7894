"""Real ensembles of trees, by XGBoost itself."""

from __future__ import annotations

import json
from typing import Any

from client_agent.apps import breast_cancer_xgboost
from client_agent.apps.breast_cancer_xgboost import TreeTrainer
from client_agent.sdk import Context
from protos.tensors import Array
from protos.trees import Ensemble

SITES = 4


def client(site: int) -> TreeTrainer:
    return breast_cancer_xgboost.client_fn(Context(f"site-{site}", {"partition": str(site), "partitions": str(SITES)}))


def initial() -> Array:
    return client(0).get_parameters({})[0]


def boosted(site: int, start: Array, **config: bool | int | float | str) -> Ensemble:
    """What the site's client sends for `start`: by default two new trees."""
    (content,), _, _ = client(site).fit([start], {"return_trees": "new", "max_depth": 3, **config})
    return Ensemble.parse(content)


def as_json(ensemble: Ensemble) -> Any:
    return json.loads(ensemble.to_array().tobytes())


def trees_of(raw: Any) -> Any:
    return raw["learner"]["gradient_booster"]["model"]["trees"]
