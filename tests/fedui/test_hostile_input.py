"""What somebody sends on purpose to break things is refused with a reason, on pages and in the API: never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.federations.models import Federation
from fedui.runs.models import Run
from tests.support.domain import a_client, a_run, with_rounds

HUGE = "9" * 5_000
BEFORE_TIME, AFTER_TIME = "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    run = a_run(federation, owner)
    with_rounds(run, [a_client(federation, "hosp-1")], 2)
    return run


@pytest.fixture
def browser(owner: User) -> Browser:
    browser = Browser(raise_request_exception=False)
    browser.force_login(owner)
    return browser


@pytest.mark.parametrize(
    "address",
    [
        "/api/v1/federations/hearts/clients?label=1:x",
        f"/api/v1/federations/hearts/clients?label={'9' * 30}:x",
        f"/api/v1/federations/hearts/clients?label={HUGE}:x",
        "/api/v1/federations/hearts/clients?label=:x",
        "/api/v1/federations/hearts/clients?label=a\"b'c:x",
        f"/api/v1/federations/hearts/runs?created_since={BEFORE_TIME}".replace("+", "%2B"),
        f"/api/v1/federations/hearts/runs?created_until={AFTER_TIME}",
        "/api/v1/runs/{run}/outlook?target=nan",
        "/api/v1/runs/{run}/outlook?target=inf",
        "/api/v1/runs/{run}/outlook?target=1e999",
        "/api/v1/runs/{run}/rounds?number=1e-1000000",
        "/api/v1/runs/{run}/rounds?number=nan",
        f"/api/v1/runs/{'{run}'}/rounds/{2**63 - 1}/participations",
        f"/api/v1/runs/{'{run}'}/rounds/{2**64}/participations",
        f"/api/v1/federations/hearts/audit?since={BEFORE_TIME}".replace("+", "%2B"),
        "/f/hearts/runs/?q=%00",
        "/f/hearts/search/?q=%00",
        "/f/hearts/search/?q=1:x",
        f"/f/hearts/search/?q={'9' * 30}:x",
        "/f/hearts/models/?q=%00",
        "/f/hearts/models/?view=runs&page=" + HUGE,
        "/f/hearts/clients/?q=%00&sort=answered&label.x=%00",
        "/f/hearts/runs/new/?app=%00&strategy_version=" + HUGE,
        "/f/hearts/runs/new/?origin=" + HUGE,
        "/f/hearts/runs/new/?fork_of=1&round=%00",
        "/f/hearts/clients/readiness/?app=" + HUGE,
        "/f/hearts/runs/{run}/promote/?round=" + HUGE,
        f"/f/hearts/runs/{'9' * 30}/",
        f"/f/hearts/runs/{'9' * 30}/shares/",
        "/f/hearts/runs/compare/?runs=1,2&target=nan",
        f"/f/hearts/audit/?since={BEFORE_TIME}".replace("+", "%2B"),
        "/f/hearts/audit/?q=%00&actor=%00&action=%00&since=0001-01-01",
        "/f/hearts/audit/" + "9" * 30 + "/",
        "/f/hearts/audit/?until=9999-12-31",
        "/f/hearts/queries/?page=%00",
        "/f/hearts/alerts/?kind=%00&page=" + HUGE,
        "/f/hearts/settings/rules/new/?kind=%00",
        "/f/hearts/strategies/?q=%00",
        "/f/hearts/apps/?q=%00",
        "/reports/%00/",
        "/invitations/%00/",
    ],
)
def test_reading(browser: Browser, run: Run, address: str) -> None:
    response = browser.get(address.replace("{run}", str(run.pk)))

    assert response.status_code < 500, response.content[:300]


RULE = "/api/v1/federations/hearts/alert-rules"


@pytest.mark.parametrize(
    ("address", "body"),
    [
        (RULE, {"name": "a", "kind": "client_offline", "settings": {"minutes": 10**400}}),
        (RULE, {"name": "a", "kind": "client_offline", "settings": {"minutes": [1]}}),
        (RULE, {"name": "a", "kind": "metric_threshold", "settings": {"source": []}}),
        (RULE, {"name": "a", "kind": "metric_threshold", "settings": {"source": {}, "threshold": "nan"}}),
        (f"{RULE}/preview", {"kind": "metric_threshold", "settings": {"comparison": {}}}),
        ("/api/v1/federations/hearts/webhooks", {"name": "a", "url": "https://["}),
        ("/api/v1/federations/hearts/webhooks", {"name": "a", "url": "https://a:99999999/"}),
        ("/api/v1/federations/hearts/webhooks", {"name": "a", "url": "https://[fec0::1]/"}),
        ("/api/v1/runs/{run}/commands", {"command": "schedule", "start_at": BEFORE_TIME}),
        ("/api/v1/runs/{run}/commands", {"command": "clone", "start_at": AFTER_TIME}),
        ("/api/v1/runs/{run}/commands", {"command": "schedule", "start_at": 5}),
        ("/api/v1/runs/{run}/commands", {"command": "fork", "round": 1, "strategy_version": 2**62}),
        ("/api/v1/runs/{run}/commands", {"command": "pause", "at_once": "maybe"}),
        ("/api/v1/federations/hearts/models/ecg/versions", {"run": "{run}", "round": 2**31 - 1}),
        ("/api/v1/strategies/validate", {"config": {"cohort": {"fraction": "1e999"}}}),
        ("/api/v1/federations/hearts/strategies", {"name": "x", "config": {"local": {"lr": "nan"}}}),
        ("/api/v1/federations/hearts/tokens", {"note": "a", "labels": {"a\u202eb": "x"}}),
    ],
)
def test_writing(browser: Browser, run: Run, address: str, body: Any) -> None:
    text = json.dumps(body).replace('"{run}"', str(run.pk)).replace('"1e999"', "1e999")
    response = browser.post(address.replace("{run}", str(run.pk)), text, content_type="application/json")

    assert response.status_code < 500, response.content[:300]


FORM = "/f/hearts"


@pytest.mark.parametrize(
    ("address", "values"),
    [
        (f"{FORM}/runs/{{run}}/do/schedule/", {"start_at": BEFORE_TIME}),
        (f"{FORM}/runs/{{run}}/do/schedule/", {"start_at": AFTER_TIME}),
        (f"{FORM}/runs/{{run}}/do/clone/", {"start_at": AFTER_TIME}),
        (f"{FORM}/runs/{{run}}/do/pause/", {"key": "\0"}),
        (f"{FORM}/runs/{{run}}/do/weigh/", {"client": "\0", "percent": "0", "confirm": "\0"}),
        (f"{FORM}/views/", {"name": "a", "address": "http://["}),
        (f"{FORM}/views/", {"name": "a", "address": f"/f/hearts/models/{'a' * 2_000}/"}),
        (f"{FORM}/views/", {"name": "a", "address": f"/f/hearts/runs/?{'q' * 2_300}"}),
        ("/account/sessions/end/", {"session": HUGE}),
        (f"{FORM}/settings/runs/", {"progress_days": "2000000000", "log_days": "800000"}),
        (
            f"{FORM}/settings/rules/new/?kind=metric_threshold",
            {"kind": "metric_threshold", "setting_threshold": "1e999"},
        ),
    ],
)
def test_forms(browser: Browser, run: Run, address: str, values: dict[str, str]) -> None:
    response = browser.post(address.replace("{run}", str(run.pk)), values)

    assert response.status_code < 500, response.content[:300]
    assert browser.get("/f/hearts/runs/").status_code == 200
    assert browser.get("/f/hearts/settings/retention/").status_code == 200
