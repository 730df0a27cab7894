"""Ensembles of gradient-boosted trees on the wire: XGBoost's JSON model, read as if a stranger had written it.

The format is that of `Booster.save_raw("json")` (XGBoost documentation, "Introduction to Model IO", and `doc/model.schema`),
for the booster `gbtree` with numerical splits and one target. What is read is checked in full, since another client's XGBoost
will walk these trees in native code: every array has one entry a node, every child and feature is in range, each tree is one,
no number is NaN or infinite. What is written is made of what was checked alone.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from protos import limits
from protos.tensors import Array, CodecError

MAX_FEATURES = 1_000_000
MAX_CLASSES = 10_000
MAX_DEPTH = 64
MAX_TREES = 100_000
MAX_TEXT = 256
"""Characters of a name in a model: of an objective, a feature, a parameter."""

FLOAT32_MAX = float(np.finfo(np.float32).max)
ROOT_PARENT = 2**31 - 1
LEAF = -1

_INTEGERS = ("left_children", "right_children", "split_indices", "default_left")
_FLOATS = ("split_conditions", "base_weights", "loss_changes", "sum_hessian")
_CATEGORICAL = ("categories", "categories_nodes", "categories_segments", "categories_sizes")

Fields = Mapping[str, Any]


class BadEnsemble(CodecError):
    """Bytes that are no ensemble of trees that may be passed on. The text is for the operator and the data owner."""


@dataclass(frozen=True, slots=True)
class Header:
    """What all trees of an ensemble are made for. Ensembles with equal headers can be joined."""

    objective: str
    objective_parameters: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    base_score: tuple[float, ...]
    boost_from_average: str
    num_class: int
    num_feature: int
    feature_names: tuple[str, ...]
    feature_types: tuple[str, ...]
    version: tuple[int, ...]

    @property
    def num_groups(self) -> int:
        """Outputs of the ensemble: one, or one a class."""
        return max(1, self.num_class)

    def misfit(self, other: Header) -> str:
        """In what the ensemble of `other` is made for something else, in words; empty if it can be joined to this one's."""
        for name in ("objective", "num_class", "num_feature", "base_score", "feature_names", "feature_types"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name} is {_short(theirs)}, not {_short(mine)}"
        return ""


@dataclass(frozen=True, slots=True)
class Tree:
    """One regression tree. `nodes` has XGBoost's arrays by name, each with one entry a node; node 0 is the root."""

    nodes: Mapping[str, Sequence[float]]
    group: int
    """The output that it adds to."""
    depth: int

    def __len__(self) -> int:
        return len(self.nodes["left_children"])

    def leaf_values(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """What it adds for each row of `features`, of shape (rows, features); NaN is a missing value."""
        left, right = (np.array(self.nodes[name], np.int64) for name in ("left_children", "right_children"))
        feature = np.array(self.nodes["split_indices"], np.int64)
        value = np.array(self.nodes["split_conditions"], np.float32)
        to_left_by_default = np.array(self.nodes["default_left"], bool)
        rows, at = np.arange(len(features)), np.zeros(len(features), np.int64)
        for _ in range(self.depth):
            x = features[rows, feature[at]]
            goes_left = np.where(np.isnan(x), to_left_by_default[at], x < value[at])
            at = np.where(left[at] == LEAF, at, np.where(goes_left, left[at], right[at]))
        return value[at]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """`rounds` are the boosting rounds: tree numbers at which one begins, 0 first, and the number of trees last."""

    header: Header
    num_parallel_tree: int
    trees: tuple[Tree, ...]
    rounds: tuple[int, ...]

    @classmethod
    def parse(cls, content: bytes | bytearray | memoryview | Array) -> Ensemble:
        """Raises `BadEnsemble`."""
        raw = bytes(content) if not isinstance(content, np.ndarray) else content.tobytes()
        try:
            return _ensemble(_json(raw))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, BadEnsemble):
                raise
            raise BadEnsemble(
                f"The model is no XGBoost model in JSON: {type(error).__name__}: {_short(error)}."
            ) from error

    def to_array(self) -> NDArray[np.uint8]:
        """The JSON that XGBoost loads and `parse` reads, as the content of a tensor."""
        text = json.dumps(_to_json(self), separators=(",", ":"), allow_nan=False)
        return np.frombuffer(text.encode(), np.uint8)

    def joined(self, others: Iterable[Ensemble]) -> Ensemble:
        """This ensemble with the trees of `others` after its own, their boosting rounds kept. Headers must be equal."""
        trees, rounds = list(self.trees), list(self.rounds)
        for other in others:
            rounds += [len(trees) + start for start in other.rounds[1:]]
            trees += other.trees
        return replace(self, trees=tuple(trees), rounds=tuple(rounds))

    def begins_with(self, other: Ensemble) -> bool:
        """Whether the first trees of this one are those of `other`, to the last digit."""
        return self.trees[: len(other.trees)] == other.trees and self.rounds[: len(other.rounds)] == other.rounds

    def margins(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sum of the trees for each row, shape (rows, outputs), summed as XGBoost does; its base score is not in it."""
        total = np.zeros((len(features), self.header.num_groups), np.float32)
        for tree in self.trees:
            total[:, tree.group] += tree.leaf_values(features)
        return total


# --- reading ---------------------------------------------------------------------------------------------------------


def _json(raw: bytes) -> Any:
    if len(raw) > limits.MAX_OPEN_BYTES:
        raise BadEnsemble(f"The model has {len(raw):,} bytes; the limit is {limits.MAX_OPEN_BYTES:,}.")
    # A tree is at least 300 bytes, and has less than 24 objects and arrays: no text may become much larger in memory.
    if raw.count(b"[") + raw.count(b"{") > 1_000 + len(raw) // 12:
        raise BadEnsemble("The model has more brackets than trees could have.")
    try:
        return json.loads(raw, parse_constant=_no_number)
    except RecursionError:
        raise BadEnsemble("The model is nested deeper than any ensemble.") from None


def _no_number(text: str) -> NoReturn:
    raise BadEnsemble(f"The model holds {text}.")


def _ensemble(raw: Any) -> Ensemble:
    learner = _object(_object(raw, "the model")["learner"], "learner")
    booster = _object(learner["gradient_booster"], "gradient_booster")
    if booster.get("name") != "gbtree":
        raise BadEnsemble(f"The booster is {_short(booster.get('name'))}; only gbtree can be joined.")
    header = _header(learner, _integers(raw["version"], "version", 0, 10**6))
    model = _object(booster["model"], "model")
    size = _object(model["gbtree_model_param"], "gbtree_model_param")
    groups = _integers(model["tree_info"], "tree_info", 0, header.num_groups - 1)
    trees, count = _list(model["trees"], "trees"), _integer(size["num_trees"], "num_trees", 0, MAX_TREES)
    if not len(trees) == len(groups) == count:
        raise BadEnsemble(f"num_trees is {count}, and there are {len(trees)} trees of {len(groups)} groups.")
    return Ensemble(
        header,
        _integer(size["num_parallel_tree"], "num_parallel_tree", 0, MAX_TREES),
        tuple(_tree(tree, group, header.num_feature) for tree, group in zip(trees, groups, strict=True)),
        _rounds(model["iteration_indptr"], count),
    )


def _header(learner: Fields, version: tuple[int, ...]) -> Header:
    model = _object(learner["learner_model_param"], "learner_model_param")
    objective = _object(learner["objective"], "objective")
    parameters = ((name, value) for name, value in objective.items() if name != "name")
    _integer(model.get("num_target", 1), "num_target", 1, 1)
    header = Header(
        objective=_text(objective["name"], "objective"),
        objective_parameters=tuple((_text(name, "objective"), _texts_by_name(value)) for name, value in parameters),
        base_score=_base_score(model["base_score"]),
        boost_from_average=str(_integer(model.get("boost_from_average", 0), "boost_from_average", 0, 1)),
        num_class=_integer(model["num_class"], "num_class", 0, MAX_CLASSES),
        num_feature=_integer(model["num_feature"], "num_feature", 1, MAX_FEATURES),
        feature_names=_texts(learner.get("feature_names", []), "feature_names"),
        feature_types=_texts(learner.get("feature_types", []), "feature_types"),
        version=version,
    )
    for name in ("feature_names", "feature_types"):
        if len(getattr(header, name)) not in (0, header.num_feature):
            raise BadEnsemble(f"{name} has {len(getattr(header, name))} entries for {header.num_feature} features.")
    if len(header.base_score) not in (1, header.num_groups):
        raise BadEnsemble(f"base_score has {len(header.base_score)} entries for {header.num_groups} outputs.")
    if len(version) != 3:
        raise BadEnsemble("version has three numbers.")
    return header


def _rounds(raw: Any, num_trees: int) -> tuple[int, ...]:
    rounds = _integers(raw, "iteration_indptr", 0, num_trees)
    if not rounds or rounds[0] != 0 or rounds[-1] != num_trees or any(a >= b for a, b in itertools.pairwise(rounds)):
        raise BadEnsemble(f"iteration_indptr doesn't grow from 0 to the number of trees, {num_trees}.")
    return rounds


def _tree(raw: Any, group: int, num_feature: int) -> Tree:
    tree = _object(raw, "a tree")
    size = _object(tree["tree_param"], "tree_param")
    count = _integer(size["num_nodes"], "num_nodes", 1, limits.MAX_OPEN_BYTES)
    if _integer(size.get("num_deleted", 0), "num_deleted", 0, count):
        raise BadEnsemble("A tree has pruned nodes: train with tree_method hist.")
    _integer(size.get("size_leaf_vector", 1), "size_leaf_vector", 0, 1)
    if any(_list(tree.get(name, []), name) for name in _CATEGORICAL) or any(
        _list(tree.get("split_type", []), "split_type")
    ):
        raise BadEnsemble("A tree splits by categories; only numerical splits are supported.")
    integers = {name: _node_integers(tree[name], name, count) for name in _INTEGERS}
    floats = {name: _node_floats(tree[name], name, count) for name in _FLOATS}
    depth = _depth(integers["left_children"], integers["right_children"])
    splits = integers["left_children"] != LEAF
    features = integers["split_indices"]
    if splits.any() and not (features[splits].min() >= 0 and features[splits].max() < num_feature):
        raise BadEnsemble(f"A tree splits by a feature that is none of the {num_feature}.")
    integers["split_indices"] = np.where(splits, features, 0)
    integers["default_left"] = np.where(integers["default_left"] != 0, 1, 0)
    return Tree({name: array.tolist() for name, array in integers.items()} | floats, group, depth)


def _depth(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    """The longest way from the root to a leaf. Raises `BadEnsemble` unless the nodes are one binary tree."""
    count = len(left)
    if ((left == LEAF) != (right == LEAF)).any():
        raise BadEnsemble("A node of a tree has one child.")
    children = np.concatenate([left[left != LEAF], right[right != LEAF]])
    if len(children) and not (children.min() >= 1 and children.max() < count):
        raise BadEnsemble("A node's child is out of range.")
    if (np.bincount(children, minlength=count)[1:] != 1).any():
        raise BadEnsemble("A node of a tree has no parent, or two.")
    level, reached, depth = np.zeros(1, np.int64), 1, 0
    while (inner := level[left[level] != LEAF]).size:
        level, depth = np.concatenate([left[inner], right[inner]]), depth + 1
        reached += level.size
        if depth > MAX_DEPTH:
            raise BadEnsemble(f"A tree is deeper than {MAX_DEPTH}.")
    if reached != count:
        raise BadEnsemble("A tree has nodes in a circle.")
    return depth


def _node_integers(raw: Any, name: str, count: int) -> NDArray[np.int64]:
    values = _node_values(raw, name, count, "bi")
    return values.astype(np.int64)


def _node_floats(raw: Any, name: str, count: int) -> list[float]:
    values = _node_values(raw, name, count, "bif").astype(np.float64)
    if not (np.abs(values) <= FLOAT32_MAX).all():
        raise BadEnsemble(f"{name} holds a number that is no float32.")
    return [float(value) for value in values]


def _node_values(raw: Any, name: str, count: int, kinds: str) -> NDArray[Any]:
    items = _list(raw, name)
    if len(items) == count and all(
        isinstance(item, int | float) for item in items
    ):  # before NumPy makes room for a text
        values = np.array(items)
        if values.dtype.kind in kinds:
            return values
    raise BadEnsemble(f"{name} of a tree isn't one number for each of its {count} nodes.")


def _base_score(raw: Any) -> tuple[float, ...]:
    """XGBoost 3.1 and newer write a vector: "[5E-1]"."""
    scores = tuple(float(part) for part in _text(raw, "base_score").strip("[]").split(","))
    if not all(abs(score) <= FLOAT32_MAX for score in scores):
        raise BadEnsemble("base_score isn't finite.")
    return scores


def _object(raw: Any, name: str) -> Fields:
    return raw if isinstance(raw, dict) else _wrong(name, "an object")


def _list(raw: Any, name: str) -> list[Any]:
    return raw if isinstance(raw, list) else _wrong(name, "a list")


def _text(raw: Any, name: str) -> str:
    return raw if isinstance(raw, str) and len(raw) <= MAX_TEXT and raw.isprintable() else _wrong(name, "a short text")


def _texts(raw: Any, name: str) -> tuple[str, ...]:
    return tuple(_text(text, name) for text in _list(raw, name))


def _texts_by_name(raw: Any) -> tuple[tuple[str, str], ...]:
    values = _object(raw, "objective")
    if len(values) > MAX_TEXT:
        _wrong("objective", "a short list of parameters")
    return tuple((_text(name, "objective"), _text(value, "objective")) for name, value in values.items())


def _integer(raw: Any, name: str, least: int, most: int) -> int:
    """XGBoost writes the integers of its parameters as texts."""
    if isinstance(raw, bool | float) or (isinstance(raw, str) and len(raw) > 20):
        _wrong(name, "a whole number")
    value = int(raw)
    return value if least <= value <= most else _wrong(name, f"a whole number from {least:,} to {most:,}")


def _integers(raw: Any, name: str, least: int, most: int) -> tuple[int, ...]:
    return tuple(_integer(value, name, least, most) for value in _list(raw, name))


def _wrong(name: str, expected: str) -> NoReturn:
    raise BadEnsemble(f"{name} of the model isn't {expected}.")


def _short(value: object) -> str:
    """Escaped, for JSON may hold characters that can't be stored or sent: NUL, half a surrogate pair."""
    return repr(str(value)[:80])[1:-1]


# --- writing ---------------------------------------------------------------------------------------------------------


def _to_json(ensemble: Ensemble) -> dict[str, Any]:
    header, trees = ensemble.header, ensemble.trees
    model = {
        "gbtree_model_param": {"num_parallel_tree": str(ensemble.num_parallel_tree), "num_trees": str(len(trees))},
        "iteration_indptr": list(ensemble.rounds),
        "tree_info": [tree.group for tree in trees],
        "trees": [_tree_to_json(number, tree, header) for number, tree in enumerate(trees)],
    }
    return {
        "learner": {
            "attributes": {},
            "feature_names": list(header.feature_names),
            "feature_types": list(header.feature_types),
            "gradient_booster": {"model": model, "name": "gbtree"},
            "learner_model_param": {
                "base_score": _score_to_text(header),
                "boost_from_average": header.boost_from_average,
                "num_class": str(header.num_class),
                "num_feature": str(header.num_feature),
                "num_target": "1",
            },
            "objective": {
                "name": header.objective,
                **{name: dict(values) for name, values in header.objective_parameters},
            },
        },
        "version": list(header.version),
    }


def _score_to_text(header: Header) -> str:
    scores = ",".join(f"{score!r}" for score in header.base_score)
    return f"[{scores}]" if header.version >= (3, 1) else scores


def _tree_to_json(number: int, tree: Tree, header: Header) -> dict[str, Any]:
    parents = [ROOT_PARENT] * len(tree)
    for name in ("left_children", "right_children"):
        for parent, child in enumerate(tree.nodes[name]):
            if child != LEAF:
                parents[int(child)] = parent
    return {
        **tree.nodes,
        **{name: [] for name in _CATEGORICAL},
        "id": number,
        "parents": parents,
        "split_type": [0] * len(tree),
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(header.num_feature),
            "num_nodes": str(len(tree)),
            "size_leaf_vector": "1",
        },
    }
