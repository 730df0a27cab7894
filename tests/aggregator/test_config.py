"""The configuration of a strategy: what is legal, what is refused and why, and how older versions are read."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.core import registry
from aggregator.core.config import LocalConfig, StrategyConfig, UpdateConfig
from aggregator.core.schedule import Constant, Cosine, Step
from protos import limits


def test_the_default_is_fedavg() -> None:
    assert StrategyConfig().algorithm == "mean"


def test_every_rule_on_vectors_goes_with_every_optimizer() -> None:
    for rule in (name for name, part in registry.rules().items() if part.vectors):
        for optimizer in registry.optimizers():
            config = StrategyConfig.model_validate(
                {
                    "aggregation": {"name": rule},
                    "optimizer": {"name": optimizer},
                    "cohort": {"min_clients": 100},
                    "faults": {"quorum": 100},
                }
            )
            assert config.algorithm.startswith(rule)


def test_yaml_and_json_come_back() -> None:
    config = StrategyConfig.model_validate(
        {
            "local": {"learning_rate": 0.1, "schedule": {"name": "cosine"}, "extra": {"mu": 0.5}},
            "update": {"clip_norm": 2},
        }
    )
    assert StrategyConfig.from_yaml(config.to_yaml()) == config
    assert StrategyConfig.model_validate_json(config.model_dump_json()) == config


def test_version_1_is_read() -> None:
    old = {"schema_version": 1, "algorithm": "fedavg", "cohort": {"min_clients": 4}, "local": {"learning_rate": 0.05}}
    config = StrategyConfig.model_validate(old)
    assert (config.schema_version, config.algorithm, config.cohort.min_clients) == (2, "mean", 4)
    assert config.local.learning_rate == 0.05


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"aggregation": {"name": "os.system"}}, "does not match any of the expected tags"),
        ({"aggregation": {"name": "mean", "code": "import os"}}, "Extra inputs are not permitted"),
        ({"faults": {"quorum": 9}}, "such a round could never count"),
        (
            {"cohort": {"min_clients": 5, "max_clients": 4}},
            "begins with 5 clients or more, and may have no more than 4",
        ),
        ({"cohort": {"max_clients": 1}}, r"or lower the fewest, and the quorum \(2\) with it"),
        ({"cohort": {"max_clients": 0}}, "greater than or equal to 1"),
        ({"cohort": {"order": "alphabetical"}}, "'random', 'cyclic' or 'available'"),
        ({"local": {"learning_rate": float("nan")}}, "finite number"),
        ({"stopping": {"target": float("inf")}}, "finite number"),
        ({"optimizer": {"name": "momentum", "learning_rate": float("inf")}}, "finite number"),
        ({"cohort": {"fraction": 1.5}}, "less than or equal to 1"),
        ({"schema_version": 99}, "Input should be 2"),
        ({"update": {"clip_norm": 0}}, "greater than 0"),
        ({"aggregation": {"name": "xgboost_bagging"}, "optimizer": {"name": "adam"}}, "choose none instead of Adam"),
        ({"aggregation": {"name": "xgboost_bagging"}, "update": {"clip_norm": 1}}, "leave the longest step empty"),
        ({"aggregation": {"name": "xgboost_bagging", "parallel_trees": 60}}, "2 local epochs.* of 60 make 120"),
        ({"aggregation": {"name": "xgboost_cyclic"}}, "one client a round, in turn: ask the clients in cyclic order"),
    ],
)
def test_what_makes_no_sense_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StrategyConfig.model_validate(config)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "- a list", "{", "just words"])
def test_yaml_that_is_no_strategy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not YAML|mapping"):
        StrategyConfig.from_yaml(text)


def bomb(levels: int) -> str:
    """Ten to the power of `levels` when its aliases are followed."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "aliases"),
        ("cohort: &c {min_clients: 2}\nfaults: *c", "aliases"),
        ("cohort: {<<: &c {min_clients: 2}, <<: *c}", "aliases"),
        ("[" * 3000, "too many open brackets"),
        ("- " * 3000, "nested too deep"),
        ("a: b\n" * 5000, "at most 20,000 are read"),
        ("a: " + "1" * 5_000, "not YAML"),
    ],
)
def test_yaml_that_grows_without_end_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StrategyConfig.from_yaml(text)


def test_no_strategy_is_written_with_aliases() -> None:
    same = Cosine(end=0.5)
    config = StrategyConfig(local=LocalConfig(schedule=same, epochs_schedule=same))
    assert StrategyConfig.from_yaml(config.to_yaml()) == config


def test_the_json_schema_tells_parts_apart() -> None:
    schema = StrategyConfig.model_json_schema()
    assert schema["properties"]["aggregation"]["discriminator"]["propertyName"] == "name"
    assert set(schema["properties"]["aggregation"]["discriminator"]["mapping"]) == set(registry.rules())


def test_schedules() -> None:
    assert Constant().factor_at(7, 10) == 1.0
    assert [Step(factor=0.5, every=2).factor_at(r, 6) for r in range(1, 7)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    cosine = Cosine(end=0.2)
    assert cosine.factor_at(1, 11) == 1.0
    assert cosine.factor_at(6, 11) == pytest.approx(0.6)
    assert cosine.factor_at(11, 11) == pytest.approx(0.2)
    assert cosine.factor_at(1, 1) == 1.0
    local = LocalConfig(learning_rate=0.4, schedule=Step(factor=0.5, every=1))
    assert local.as_scalars(3, 10)["learning_rate"] == 0.1


def test_epochs_follow_a_schedule_of_their_own_and_are_never_none() -> None:
    local = LocalConfig(epochs=7, epochs_schedule=Step(factor=0.5, every=2), schedule=Step(factor=0.1, every=1))
    assert [local.as_scalars(number, 9)["epochs"] for number in range(1, 10)] == [7, 7, 4, 4, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("compression", ["float16", "bfloat16", "int8"])
def test_only_differences_are_compressed(compression: str) -> None:
    with pytest.raises(ValidationError, match="Compress differences"):
        UpdateConfig.model_validate({"compression": compression})
    update = UpdateConfig.model_validate({"compression": compression, "send": "delta"})
    assert str(update.encoding) == f"{compression} differences from the global model"


def test_top_k_sends_differences_and_says_how_many() -> None:
    with pytest.raises(ValidationError, match="choose send: delta"):
        UpdateConfig.model_validate({"compression": "top_k"})
    with pytest.raises(ValidationError, match="less than or equal to 0.5"):
        UpdateConfig.model_validate({"compression": "top_k", "send": "delta", "keep": 0.6})
    config = StrategyConfig.model_validate({"update": {"compression": "top_k", "send": "delta", "keep": 0.02}})
    assert str(config.update.encoding) == "the largest 0.02 of the differences from the global model"
    assert config.agent_minor == limits.TOP_K_MINOR
    assert StrategyConfig.model_validate({"update": {"packing": "zstd"}}).agent_minor == 0, "who can't, needn't"


@given(st.floats(0, 1), st.integers(2, 200))
def test_a_cosine_never_rises(end: float, rounds: int) -> None:
    factors = [Cosine(end=end).factor_at(r, rounds) for r in range(1, rounds + 1)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors))


def buffered(**sections: object) -> StrategyConfig:
    return StrategyConfig.model_validate({"mode": {"name": "buffered", "buffer_size": 4}, **sections})


def test_a_buffered_run_goes_with_rules_and_optimizers() -> None:
    assert buffered(aggregation={"name": "median"}, optimizer={"name": "adam"}).algorithm == "buffered + median + adam"
    assert buffered(faults={"quorum": 9}).fewest_updates == 4  # the buffer is the quorum
    assert StrategyConfig.from_yaml("schema_version: 2").mode.name == "synchronous"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"mode": {"name": "buffered", "buffer_size": 0}}, "greater than or equal to 1"),
        ({"aggregation": {"name": "krum", "malicious": 1}}, "the buffer allows a round with 4. Raise the buffer to 5"),
        ({"cohort": {"over_selection": 1.5}}, "A buffered run has no cohorts to choose"),
        ({"cohort": {"fraction": 0.5}}, "A buffered run has no cohorts to choose"),
        ({"stopping": {"source": "federated", "target": 0.9}}, "clients don't evaluate"),
        ({"method": {"name": "scaffold"}}, "In a buffered run they don't"),
    ],
)
def test_what_makes_no_sense_without_a_cohort_is_refused(sections: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        buffered(**sections)
