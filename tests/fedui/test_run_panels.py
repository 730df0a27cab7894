"""What the panels of a run's page are told: clients by round, a client's history, models compared, forecasts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client as Browser
from pytest_django import DjangoAssertNumQueries
from safetensors.numpy import save

from fedui.accounts.models import User
from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.runs import forecast
from fedui.runs.forecast import NoForecast
from fedui.runs.models import ModelVersion, Run, RunStatus
from tests.support.domain import a_client, a_federation, a_run, a_user
from tests.support.run_world import Shape, with_history


@pytest.fixture
def browser(owner: User) -> Browser:
    browser = Browser()
    browser.force_login(owner)
    return browser


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    return a_run(federation, owner)


def get(browser: Browser, run: Run, rest: str, status: int = 200, **query: Any) -> Any:
    response = browser.get(f"/api/v1/runs/{run.pk}/{rest}", query)
    assert response.status_code == status, response.content
    return response.json()


def test_few_clients_are_told_whole(browser: Browser, run: Run) -> None:
    with_history(run, Shape(clients=3, rounds=70))

    body = get(browser, run, "heat")

    assert [column["number"] for column in body["rounds"]] == list(range(11, 71))
    assert (body["overview"], body["total"], len(body["clients"])) == (False, 3, 3)
    assert all(len(cells) == 60 for cells in body["cells"].values())
    cells = next(iter(body["cells"].values()))
    column, _, norm, *_ = next(cell for cell in cells if cell[1] == "completed")
    spread = body["rounds"][column]["spread"]["norm"]
    assert spread["quantiles"][0] <= norm <= spread["quantiles"][-1]
    assert spread["deviation"] > 0
    assert [column["number"] for column in get(browser, run, "heat", until=5)["rounds"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("rounds", [2, 12])
def test_many_clients_are_an_overview_and_pages(
    browser: Browser, run: Run, django_assert_num_queries: DjangoAssertNumQueries, rounds: int
) -> None:
    with_history(run, Shape(clients=130, rounds=rounds))
    overview = get(browser, run, "heat")
    assert (overview["overview"], overview["total"], overview["pages"]) == (True, 130, 3)
    assert 0 < len(overview["clients"]) <= 20
    names = [client["name"] for page in (1, 2, 3) for client in get(browser, run, "heat", page=page)["clients"]]
    assert len(set(names)) == 130
    found = get(browser, run, "heat", find=names[7])
    assert [client["name"] for client in found["clients"]] == [names[7]]
    with django_assert_num_queries(11):
        get(browser, run, "heat", page=2)
    with django_assert_num_queries(10):
        get(browser, run, f"clients/{found['clients'][0]['id']}")


def test_a_client_has_a_history_beside_the_others(browser: Browser, run: Run) -> None:
    clients = with_history(run, Shape(clients=4, rounds=6))
    body = get(browser, run, f"clients/{clients[0].pk}")
    assert [one["number"] for one in body["rounds"]] == [1, 2, 3, 4, 5, 6]
    assert len(body["quantiles"]) == len(body["rounds"][0]["spread"]["loss"]["quantiles"])
    stranger = a_client(a_federation("other", a_user("other")))
    get(browser, run, f"clients/{stranger.pk}", status=404)


def test_looking_back_gives_the_participations_of_that_time(browser: Browser, run: Run) -> None:
    with_history(run, Shape(clients=3, rounds=9))
    told = get(browser, run, "rounds/4/participations")["participations"]
    assert set(told["round"]) == {1, 2, 3, 4}


def test_panels_belong_to_members(run: Run, stranger: User) -> None:
    [client] = with_history(run, Shape(clients=1, rounds=1))
    browser = Browser()
    browser.force_login(stranger)
    for rest in ("heat", "outlook", "rounds/1/participations", "diff/0/1", f"clients/{client.pk}"):
        get(browser, run, rest, status=404)


# --- models ----------------------------------------------------------------------------------------------------------


def stored(run: Run, folder: Path, number: int, tensors: dict[str, Any]) -> ModelVersion:
    data = save({name: np.asarray(values) for name, values in tensors.items()})
    key = f"run-{run.pk}/round-{number}.safetensors"
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return ModelVersion.objects.create(
        run=run, round_number=number, key=key, sha256=f"{run.pk:032x}{number:032x}", size=len(data)
    )


def test_models_are_compared_by_layer(browser: Browser, run: Run, settings: Any, tmp_path: Path) -> None:
    settings.MODEL_DIR = tmp_path
    before = {
        "head.weight": np.array([[3, 4]], "float32"),
        "head.bias": np.array([0], "float16"),
        "count": np.array([7], "int64"),
    }
    after = {
        "head.weight": np.array([[3, 0]], "float32"),
        "head.bias": np.array([3], "float16"),
        "count": np.array([7], "int64"),
    }
    stored(run, tmp_path, 1, before)
    last = stored(run, tmp_path, 3, after)
    stored(run, tmp_path, 4, {"head.weight": np.array([1], "float32")})

    body = get(browser, run, "diff/1/3")

    assert (body["before"], body["after"], body["total"]["norm"]) == (1, 3, 5.0)
    layers = {layer["name"]: layer for layer in body["layers"]}
    assert (layers["head"]["norm"], layers["head"]["change"], layers["head"]["largest"]) == (5.0, 1.0, 4.0)
    assert layers["head"]["cosine"] == pytest.approx(9 / math.sqrt(25 * 18))
    tensors = {tensor["name"]: tensor for tensor in layers["head"]["tensors"]}
    assert (tensors["head.weight"]["cosine"], tensors["head.bias"]["change"]) == (pytest.approx(0.6), None)
    assert (layers["count"]["norm"], layers["count"]["cosine"]) == (0.0, 1.0)
    assert "another size" in get(browser, run, "diff/1/4", status=400)["detail"]
    get(browser, run, "diff/1/2", status=404)

    (tmp_path / last.key).unlink()
    assert get(browser, run, "diff/1/3") == body  # models never change: what was computed is kept
    get(browser, run, "diff/3/4", status=404)


# --- forecasts -------------------------------------------------------------------------------------------------------


def test_the_end_is_told_with_a_band_once_there_are_rounds_enough() -> None:
    steady = forecast.time_left([10.0] * 8, 30)
    assert (steady.value, steady.low, steady.high) == (300, 300, 300)
    uneven = forecast.time_left([5.0, 15.0] * 4, 30)
    assert uneven.low < 270 < uneven.value == 300 < 330 < uneven.high
    with pytest.raises(NoForecast, match="after 6 rounds"):
        forecast.time_left([10.0] * 4, 30)


def test_a_curve_that_keeps_its_course_is_drawn_on() -> None:
    noise = np.random.default_rng(1).normal(0, 0.003, 100)
    points = [(n, 0.9 - 0.6 * n**-0.5 + float(noise[n])) for n in range(1, 61)]
    curve = forecast.curve_to(points, 100, share=True)
    number, band = curve[-1]
    assert (curve[0][0], number) == (60, 100)
    assert band.low < 0.84 < band.high
    assert band.high - band.low < 0.05
    reached = forecast.reached_at(curve, 0.83, lower_is_better=False)
    assert reached["earliest"] is not None
    assert reached["expected"] is not None
    assert reached["earliest"] <= reached["expected"] <= 100


def test_of_one_that_does_not_nothing_is_said() -> None:
    with pytest.raises(NoForecast, match="there are 3"):
        forecast.curve_to([(1, 0.1), (2, 0.2), (3, 0.3)], 50, share=True)
    broken = [(n, 0.5 + 0.001 * n if n < 40 else 0.1) for n in range(1, 51)]
    with pytest.raises(NoForecast, match="misses the last fifth"):
        forecast.curve_to(broken, 100, share=True)


def test_the_outlook_says_what_it_knows_and_why_not_more(browser: Browser, run: Run) -> None:
    with_history(run, Shape(clients=2, rounds=12))
    assert get(browser, run, "outlook")["end_refusal"] == "The run is queued."
    Run.objects.filter(pk=run.pk).update(status=RunStatus.RUNNING, rounds_done=12)
    body = get(browser, run, "outlook", metric="loss", target=0.1)
    assert body["end"]["low"] <= body["end"]["value"] <= body["end"]["high"]
    assert bool(body["curve"]) != bool(body["curve_refusal"])
    assert "there are 0" in get(browser, run, "outlook", metric="nothing")["curve_refusal"]
    get(browser, run, "outlook", target="much", status=400)


def test_clients_are_all_there_are(run: Run) -> None:
    assert len(with_history(run, Shape(clients=5, rounds=1))) == Client.objects.count()
