from __future__ import annotations

import pytest
from django.core.cache import cache

from fedui.accounts.models import User
from fedui.federations.models import Federation
from tests.support.domain import a_federation, a_user


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


@pytest.fixture
def owner(db: None) -> User:
    return a_user("owner")


@pytest.fixture
def federation(owner: User) -> Federation:
    return a_federation("hearts", owner)


@pytest.fixture
def stranger(db: None) -> User:
    """A member, but of another federation."""
    user = a_user("stranger")
    a_federation("lungs", user)
    return user
