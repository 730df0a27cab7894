from __future__ import annotations

from aggregator.core.config import CohortConfig, LocalConfig, StrategyConfig
from fedui.strategies.forms import ConfigForm


def _data(**changes: str) -> dict[str, str]:
    """What a browser sends of the default strategy, with some fields changed (`cohort__fraction="0.5"`)."""
    return _sent(StrategyConfig()) | {name.replace("__", "."): value for name, value in changes.items()}


def _sent(config: StrategyConfig) -> dict[str, str]:
    """What a browser sends of the form that shows `config`."""
    fields = ConfigForm(config).fields
    return {field.name: str(field.value) for field in fields if field.kind != "switch" or field.value}


def test_what_a_form_shows_it_reads_back() -> None:
    config = StrategyConfig(cohort=CohortConfig(fraction=0.5, min_clients=7, labels={"region": "north"}))
    assert ConfigForm(StrategyConfig(), _sent(config)).config == config


def test_no_digit_and_no_type_is_lost() -> None:
    extra: dict[str, bool | int | float | str] = {"depth": 3, "momentum": 0.9, "nesterov": True, "day": "2026-01-01"}
    local = LocalConfig(learning_rate=0.12345678901234567, extra=extra)
    config = ConfigForm(StrategyConfig(), _sent(StrategyConfig(local=local))).config
    assert config is not None
    assert config.local == local
    assert [type(value) for value in config.local.extra.values()] == [int, float, bool, str]


def test_every_value_of_the_configuration_has_a_field() -> None:
    def leaves(values: dict[str, object], prefix: str = "") -> set[str]:
        return {
            name
            for key, value in values.items()
            for name in (leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}"})
        }

    names = {field.name for field in ConfigForm(StrategyConfig()).fields if field.option is None}
    assert names == leaves(StrategyConfig().model_dump()) - {"schema_version"}


def test_an_error_stands_at_its_field() -> None:
    form = ConfigForm(StrategyConfig(), _data(cohort__fraction="2", local__epochs="1.5"))
    assert form.config is None
    errors = {field.name: field.errors for field in form.fields if field.errors}
    assert set(errors) == {"cohort.fraction", "local.epochs"}
    assert form.error_count == 2


def test_an_error_of_several_fields_stands_above_them() -> None:
    form = ConfigForm(StrategyConfig(), _data(faults__quorum="5"))
    assert form.config is None
    assert "such a round could never count" in form.errors[0]


def test_a_part_is_chosen_with_its_own_settings_and_no_others() -> None:
    data = _data(
        aggregation__name="krum",
        aggregation__krum__malicious="1",
        aggregation__bulyan__malicious="nonsense of a part that is not chosen",
        optimizer__name="adam",
        optimizer__adam__learning_rate="0.05",
        local__schedule__name="step",
        local__schedule__step__every="5",
        cohort__min_clients="6",
        faults__quorum="5",
        update__clip_norm="",
        stopping__target="0.9",
    )
    config = ConfigForm(StrategyConfig(), data).config
    assert config is not None
    assert config.algorithm == "krum + adam"
    assert config.aggregation.model_dump() == {"name": "krum", "malicious": 1}
    assert config.local.as_scalars(6, 10)["learning_rate"] == 0.1
    assert (config.update.clip_norm, config.stopping.target) == (None, 0.9)
    assert ConfigForm(StrategyConfig(), _sent(config)).config == config


def test_a_parts_error_stands_at_its_field_and_a_bad_pair_above() -> None:
    form = ConfigForm(StrategyConfig(), _data(aggregation__name="krum", aggregation__krum__malicious="-1"))
    assert {field.name for field in form.fields if field.errors} == {"aggregation.krum.malicious"}
    form = ConfigForm(StrategyConfig(), _data(aggregation__name="krum", aggregation__krum__malicious="3"))
    assert "needs at least 9 updates" in form.errors[0]


def test_only_the_chosen_parts_settings_are_shown() -> None:
    krum = ConfigForm(StrategyConfig(), _data(aggregation__name="krum"))
    shown = {field.name for field in krum.fields if field.option and field.shown}
    assert "aggregation.krum.malicious" in shown
    assert not [name for name in shown if name.startswith("aggregation.") and "krum" not in name]
    parts = [field.option for field in ConfigForm(StrategyConfig()).fields if field.option and field.shown]
    assert not parts  # The parts of the default have no settings.


def test_pairs_that_are_none() -> None:
    form = ConfigForm(StrategyConfig(), _data(cohort__labels="north"))
    (field,) = (field for field in form.fields if field.errors)
    assert field.name == "cohort.labels"
    assert "write key:value" in field.errors[0]


def test_a_switch_that_is_not_sent_is_off() -> None:
    data = _data()
    del data["evaluation.server"]
    config = ConfigForm(StrategyConfig(), data).config
    assert config is not None
    assert not config.evaluation.server


def test_the_mode_is_chosen_with_its_settings() -> None:
    form = ConfigForm(StrategyConfig(), _data(mode__name="buffered", mode__buffered__buffer_size="3"))
    assert form.config is not None
    assert form.config.mode.model_dump() == {
        "name": "buffered",
        "buffer_size": 3,
        "concurrency": None,
        "max_staleness": 20,
        "staleness_exponent": 0.5,
        "weighting": "uniform",
    }
    assert ConfigForm(StrategyConfig(), _sent(form.config)).config == form.config
    bad = ConfigForm(StrategyConfig(), _data(mode__name="buffered", mode__buffered__buffer_size="0"))
    assert {field.name for field in bad.fields if field.errors} == {"mode.buffered.buffer_size"}
