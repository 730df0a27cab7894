"""Redis away: who guesses gains nothing, and everybody is told."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from fedui.clients.models import EnrolmentToken
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
    assert (ready.status_code, ready.json()["parts"]["cache"], ready.json()["parts"]["database"]) == (503, False, True)
    assert Browser().get("/api/v1/health").status_code == 200
    assert world.browsers["owner"].get("/api/v1/federations/hearts/runs").status_code == 200
    assert world.browsers["owner"].get("/f/hearts/runs/").status_code == 200
