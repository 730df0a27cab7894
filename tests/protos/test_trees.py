"""Ensembles of trees: what XGBoost writes comes back, and what could harm its reader is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.tensors import Array
from protos.trees import BadEnsemble, Ensemble
from tests.support.ensembles import as_json, boosted, initial, trees_of


@cache
def example() -> bytes:
    return boosted(0, initial()).to_array().tobytes()


def loaded(ensemble: Ensemble) -> xgboost.Booster:
    return xgboost.Booster(model_file=bytearray(ensemble.to_array().tobytes()))


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "multi:softprob"])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_what_xgboost_writes_is_read_and_predicts_the_same_bits(objective: str, gamma: float) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 6)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    labels = np.nan_to_num(features[:, 0] > 0.3).astype(int) + (objective[0] == "m") * np.isnan(features[:, 1])
    data = xgboost.DMatrix(features, label=labels, feature_names=list("abcdef"))
    parameters: dict[str, Any] = {
        "objective": objective,
        "max_depth": 5,
        "nthread": 1,
        "gamma": gamma,
        "base_score": 0.5,
    }
    if objective[0] == "m":
        parameters["num_class"] = 3
    booster = xgboost.train(parameters, data, 5)
    ensemble = Ensemble.parse(bytes(booster.save_raw("json")))
    assert Ensemble.parse(ensemble.to_array()) == ensemble
    again = loaded(ensemble)
    assert again.num_boosted_rounds() == 5
    np.testing.assert_array_equal(again.predict(data, pred_leaf=True), booster.predict(data, pred_leaf=True))
    margins = booster.predict(data, output_margin=True)
    np.testing.assert_array_equal(again.predict(data, output_margin=True), margins)
    base = 0.0 if objective[0] == "b" else 0.5
    np.testing.assert_allclose(ensemble.margins(features).reshape(margins.shape) + base, margins, atol=1e-6)


def test_rows_of_floats_are_written_as_they_were_read() -> None:
    assert Ensemble.parse(example()).to_array().tobytes() == example()


def change(path: str, value: Any) -> Callable[[Any], None]:
    """Set the value at `path`; in it, `tree` stands for the first tree."""

    def apply(raw: Any) -> None:
        path_, _, last = path.rpartition(".")
        at = raw
        for key in filter(None, re.sub(r"^tree\b", "learner.gradient_booster.model.trees.0", path_).split(".")):
            at = at[int(key) if isinstance(at, list) else key]
        at[int(last) if isinstance(at, list) else last] = value

    return apply


MODEL = "learner.gradient_booster.model"
HOSTILE = [
    (change("tree.left_children.0", 10**6), "out of range"),
    (change("tree.left_children.0", -2), "out of range"),
    (change("tree.left_children.0", 0), "out of range"),
    (change("tree.left_children.0", 2), "no parent, or two"),
    (change("tree.left_children.0", -1), "one child"),
    (change("tree.left_children", []), "one number for each"),
    (change("tree.left_children.0", 1.5), "one number for each"),
    (change("tree.left_children.0", 2**70), "one number for each"),
    (change("tree.split_conditions.0", "1"), "one number for each"),
    (change("tree.split_conditions.0", [1.0]), "one number for each"),
    (change("tree.split_conditions.0", 1e39), "no float32"),
    (change("tree.sum_hessian.0", -1e300), "no float32"),
    (change("tree.split_indices.0", 30), "none of the 30"),
    (change("tree.split_indices.0", -1), "none of the 30"),
    (change("tree.split_type.0", 1), "categories"),
    (change("tree.categories", [1]), "categories"),
    (change("tree.tree_param.num_nodes", "0"), "num_nodes"),
    (change("tree.tree_param.num_nodes", "1e3"), "ValueError"),
    (change("tree.tree_param.num_nodes", "9" * 30), "num_nodes"),
    (change("tree.tree_param.num_deleted", "1"), "pruned"),
    (change("tree.tree_param.size_leaf_vector", "2"), "size_leaf_vector"),
    (change(f"{MODEL}.trees", {}), "trees of the model isn't a list"),
    (change(f"{MODEL}.trees.0", None), "a tree of the model isn't an object"),
    (change(f"{MODEL}.tree_info.0", 1), "tree_info"),
    (change(f"{MODEL}.tree_info", [0]), "trees of 1 groups"),
    (change(f"{MODEL}.gbtree_model_param.num_trees", "3"), "num_trees is 3"),
    (change(f"{MODEL}.iteration_indptr", [0, 5]), "iteration_indptr"),
    (change(f"{MODEL}.iteration_indptr", [0, 2, 1, 2]), "doesn't grow"),
    (change("learner.gradient_booster.name", "dart"), "only gbtree"),
    (change("learner.gradient_booster.name", "\0\ud800"), r"booster is \\x00\\ud800; only"),
    (change("learner.learner_model_param.num_feature", "0"), "num_feature"),
    (change("learner.learner_model_param.num_target", "2"), "num_target"),
    (change("learner.learner_model_param.num_class", "-1"), "num_class"),
    (change("learner.learner_model_param.base_score", "[NaN]"), "base_score"),
    (change("learner.learner_model_param.base_score", "[0.5,0.5]"), "2 entries for 1 outputs"),
    (change("learner.learner_model_param", []), "isn't an object"),
    (change("learner.objective.name", "x" * 300), "a short text"),
    (change("learner.objective.name", {"a": 1}), "a short text"),
    (change("learner.feature_names", ["a"]), "1 entries for 30 features"),
    (change("version", [3, 2]), "three numbers"),
    (change("learner", 3), "learner of the model isn't an object"),
]


@pytest.mark.parametrize(("damage", "message"), HOSTILE)
def test_a_hostile_ensemble_is_refused(damage: Callable[[Any], None], message: str) -> None:
    raw = json.loads(example())
    damage(raw)
    with pytest.raises(BadEnsemble, match=message):
        Ensemble.parse(json.dumps(raw).encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no XGBoost model"),
        (b"\xff\xfe{}", "no XGBoost model"),
        (b"[]", "isn't an object"),
        (b"{}", "KeyError"),
        (b"[" * 900, "nested|no XGBoost model"),
        (b"{" + b"[" * 10_000, "more brackets"),
        (b'{"learner": NaN}', "holds NaN"),
        (b'{"learner": -Infinity}', "holds -Infinity"),
        (b'{"version": ' + b"9" * 5000 + b"}", "no XGBoost model"),
    ],
)
def test_what_is_no_model_at_all_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadEnsemble, match=message):
        Ensemble.parse(content)


def test_nodes_in_a_circle_are_refused() -> None:
    """Every node has one parent, and the root reaches none of them."""
    raw = json.loads(example())
    tree = trees_of(raw)[0]
    count = 7
    for name, values in tree.items():
        if isinstance(values, list) and not name.startswith("categories"):
            tree[name] = [0] * count
    tree["tree_param"]["num_nodes"] = str(count)
    tree["left_children"] = [-1, 3, 1, -1, -1, -1, -1]
    tree["right_children"] = [-1, 2, 4, -1, -1, -1, -1]
    tree["left_children"][4], tree["right_children"][4] = 5, 6
    with pytest.raises(BadEnsemble, match="circle"):
        Ensemble.parse(json.dumps(raw).encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_place_it_is_refused_or_harmless(data: st.DataObject) -> None:
    raw = json.loads(example())
    at: Any = raw
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 5)) == 0:
            break
        at = inner
    at[key] = data.draw(json_values)
    try:
        ensemble = Ensemble.parse(json.dumps(raw).encode())
    except BadEnsemble:
        return
    assert Ensemble.parse(ensemble.to_array()) == ensemble
    assert np.isfinite(ensemble.margins(np.zeros((3, 30), np.float32))).all()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BadEnsemble):
        Ensemble.parse(np.frombuffer(content, np.uint8))


def test_a_joined_ensemble_has_the_trees_of_all_in_order() -> None:
    start: Array = initial()
    ones = [boosted(site, start) for site in range(3)]
    joined = Ensemble.parse(start).joined(ones)
    assert joined.rounds == (0, 1, 2, 3, 4, 5, 6)
    assert [tree["id"] for tree in trees_of(as_json(joined))] == list(range(6))
    assert joined.begins_with(Ensemble.parse(start).joined(ones[:1]))
    assert not joined.begins_with(ones[1])
