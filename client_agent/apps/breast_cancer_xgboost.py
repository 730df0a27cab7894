"""App "breast-cancer-xgboost": diagnosis by gradient-boosted trees. Needs XGBoost (extra `trees`).

For the rules `xgboost_bagging` and `xgboost_cyclic`: the model is one tensor of open length, XGBoost's JSON.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from client_agent.apps.breast_cancer import card
from client_agent.apps.breast_cancer_trees import BASE_SCORE, TENSOR, loss_and_accuracy
from client_agent.apps.datasets import Samples, breast_cancer
from client_agent.apps.site import Site, SiteOptions
from client_agent.sdk import App, Arrays, Config, Context, EvaluateResult, FitResult, Metrics, NumPyClient
from protos.trees import Ensemble

FEATURES = 30
FOREST_SUBSAMPLE = 0.8
"""Share of the rows that each tree of a boosting round sees where there are several: else they would all be the same tree."""


class TreeTrainer(NumPyClient):
    """Boosts the global ensemble on a `Site`. The same site, ensemble and config give the same trees."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def get_parameters(self, config: Config) -> Arrays:
        """An ensemble without trees; its seed has nothing to break."""
        empty = xgboost.DMatrix(np.zeros((2, FEATURES), np.float32), label=np.array([0, 1]))
        return [to_array(xgboost.train(_parameters({}), empty, num_boost_round=0))]

    def get_properties(self, config: Config) -> Metrics:
        return {"num_examples": len(self._site.train), "num_validation_examples": len(self._site.validation)}

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        booster, train = to_booster(parameters[0], config), self._site.train
        data = xgboost.DMatrix(train.features, label=train.labels)
        begun, rounds = booster.num_boosted_rounds(), int(config.get("epochs", 2))
        for number in range(1, rounds + 1):
            booster.update(data, iteration=begun + number - 1)
            if self._site.options.slowdown:
                self.sleep(self._site.options.slowdown)
            loss, accuracy = measured(booster, train)
            self.report_progress(number / rounds, loss=loss)
        kept = booster[begun:] if config.get("return_trees") == "new" else booster
        return [to_array(kept)], len(train), {"loss": loss, "accuracy": accuracy}

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        validation = self._site.validation
        loss, accuracy = measured(to_booster(parameters[0], {}), validation)
        return loss, len(validation), {"accuracy": accuracy}


def to_booster(content: NDArray[Any], config: Config) -> xgboost.Booster:
    """Ready to be boosted further. Raises `protos.trees.BadEnsemble`: nothing unchecked reaches XGBoost's native code."""
    checked = Ensemble.parse(content).to_array()
    return xgboost.Booster(_parameters(config), model_file=bytearray(checked.tobytes()))


def to_array(booster: xgboost.Booster) -> NDArray[np.uint8]:
    return np.frombuffer(booster.save_raw("json"), np.uint8)


def measured(booster: xgboost.Booster, samples: Samples) -> tuple[float, float]:
    margins = booster.predict(xgboost.DMatrix(samples.features), output_margin=True)
    return loss_and_accuracy(margins, samples)


def _parameters(config: Config) -> dict[str, Any]:
    """XGBoost's, from what the server tells."""
    parallel = int(config.get("num_parallel_tree", 1))
    return {
        "objective": "binary:logistic",
        "base_score": BASE_SCORE,
        "tree_method": "hist",
        "nthread": 1,
        "eta": float(config.get("learning_rate", 0.2)) * float(config.get("learning_rate_scale", 1.0)),
        "max_depth": int(config.get("max_depth", 6)),
        "num_parallel_tree": parallel,
        "subsample": float(config.get("subsample", FOREST_SUBSAMPLE if parallel > 1 else 1.0)),
        "seed": int(config.get("seed", 0)) % 2**31,
    }


def client_fn(context: Context) -> TreeTrainer:
    return TreeTrainer(Site.of(breast_cancer().shared, SiteOptions.parse(context.options)))


app = App("breast-cancer-xgboost", "1.0", "xgboost", client_fn, (TENSOR,), open_tensors=(TENSOR,), card=card)
