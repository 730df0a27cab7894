"""The form in which a global model is held and sent."""

from __future__ import annotations

import numpy as np

from aggregator.models import GlobalModel


def test_what_is_sent_is_held_once_and_what_stays_at_clients_is_kept() -> None:
    parameters = {"body": np.arange(4.0, dtype="f4"), "head": np.array(7, "i8"), "steps": np.array([True, False])}
    model = GlobalModel.of(parameters, {name: parameters[name] for name in ("body", "steps")})
    assert list(model.parameters) == list(parameters)
    assert all(np.array_equal(model.parameters[name], array) for name, array in parameters.items())
    assert np.shares_memory(model.parameters["body"], np.frombuffer(model.shared.encoded, np.uint8))
    assert model.parameters["head"] is parameters["head"]
