"""Redis away: who guesses gains nothing, and everybody is told."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from django.test import Client as Browser

from fedui.clients.models import EnrolmentToken
from fedui.settings import CACHES
from tests.security.world import World
from tests.support.api import Caller
from tests.support.domain import a_csr

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _redis_is_away(settings: Any, world: World) -> None:
    nobody = "redis://127.0.0.1:1/0"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": nobody}}


def test_nobody_enrols_or_signs_in_uncounted(world: World) -> None:
    body = {"token": "fle_a.b.c", "csr_pem": a_csr(), "name": "n", "host": "h", "agent_version": "1", "platform": "p"}
    refused = Caller(Browser()).post("enroll", body)
    assert (refused.status_code, refused.json()["code"], refused["Retry-After"]) == (503, "unavailable", "10")
    assert not EnrolmentToken.objects.filter(uses__gt=1).exists()

    page = Browser().post("/login/", {"login": "owner", "password": "wrong"})
    assert (page.status_code, page["Retry-After"]) == (503, "10")
    assert "can’t do this now" in page.content.decode()


def test_what_is_away_is_told_and_the_rest_goes_on(world: World) -> None:
    ready = Browser().get("/api/v1/ready")
    told = ready.json()
    assert (ready.status_code, told["status"]) == (
        200,
        "degraded",
    )  # pages work, so a balancer goes on sending people here
    assert told["parts"] == {"database": True, "migrations": True, "redis": False}
    assert "nobody signs in" in told["degraded"][0]
    assert Browser().get("/api/v1/health").status_code == 200
    assert world.browsers["owner"].get("/api/v1/federations/hearts/runs").status_code == 200
    assert world.browsers["owner"].get("/f/hearts/runs/").status_code == 200


def test_a_redis_that_hangs_holds_nobody_up(world: World, settings: Any) -> None:
    """It takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings.CACHES = {"default": CACHES["default"] | {"LOCATION": address}}
        began = time.monotonic()
        ready = Browser().get("/api/v1/ready")
        assert world.browsers["owner"].get("/f/hearts/runs/").status_code == 200
        assert world.browsers["owner"].get("/api/v1/federations/hearts/runs").status_code == 200
        assert time.monotonic() - began < 20
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
