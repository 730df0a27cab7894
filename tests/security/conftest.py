from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import transaction

from tests.security.world import World, a_world


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    """One for all tests of a module, which undo what they do: marked with `django_db`, each is a transaction within this one."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield a_world()
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def _many_calls(settings: Any) -> None:
    cache.clear()
    settings.API_CALLS_PER_MINUTE = settings.API_STRANGERS_PER_MINUTE = settings.ENROLMENTS_PER_MINUTE = 10**6
