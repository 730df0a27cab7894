"""What every query store must do, held against the one in memory and the one in the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async

from aggregator.core.analytics import QueryConfig, Statistic
from aggregator.memory import MemoryQueryStore
from aggregator.ports import LeaseLost, QueryLease, QueryOutcome, QuerySpec, QueryStore
from fedui.accounts.models import User
from fedui.analytics.adapters import DatabaseQueryStore
from fedui.analytics.models import Query
from fedui.analytics.services import cancel_query
from fedui.catalog.models import App
from fedui.federations.models import Federation

CONFIG = QueryConfig(column="age", statistics=(Statistic.MEAN,))
PAST = datetime(2026, 1, 2, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)


class Harness:
    """A store that holds one query, and what a test can't do through the port."""

    def __init__(
        self,
        store: QueryStore,
        query_id: int,
        cancel: Callable[[], Awaitable[None]],
        expire: Callable[[], Awaitable[None]],
    ) -> None:
        self.store, self.query_id, self.cancel, self.expire = store, query_id, cancel, expire

    async def take_up(self) -> tuple[QuerySpec, QueryLease]:
        taken = await self.store.take_up(self.query_id, "engine")
        assert taken is not None
        return taken

    async def assert_powerless(self, lease: QueryLease) -> None:
        for write in (
            self.store.renew(lease),
            self.store.release(lease),
            self.store.finish(lease, QueryOutcome.COMPLETED, "", {}),
        ):
            with pytest.raises(LeaseLost):
                await write


def in_memory() -> Harness:
    store = MemoryQueryStore()
    query = store.add(QuerySpec(1, "f", "toy", "1", CONFIG))

    async def cancel() -> None:
        store.cancel(1)

    async def expire() -> None:
        query.held = False

    return Harness(store, 1, cancel, expire)


def in_database() -> Harness:
    federation = Federation.objects.create(slug="tests", name="Tests")
    owner = User.objects.create_user("owner")
    app = App.objects.create(federation=federation, name="toy", version="1", signature=[])
    query = Query.objects.create(federation=federation, app=app, config=CONFIG.model_dump(mode="json"))

    async def expire() -> None:
        await Query.objects.filter(pk=query.pk).aupdate(lease_expires_at=PAST)

    async def cancel() -> None:
        await sync_to_async(cancel_query)(query, owner)

    return Harness(DatabaseQueryStore(), query.pk, cancel, expire)


@pytest.fixture(params=[in_memory, in_database])
async def harness(request: pytest.FixtureRequest, db: None, transactional_db: None) -> Harness:
    make: Callable[[], Harness] = request.param
    return await sync_to_async(make)()


async def test_a_query_is_taken_up_once(harness: Harness) -> None:
    spec, _ = await harness.take_up()
    assert (spec.app, spec.app_version, spec.config) == ("toy", "1", CONFIG)
    assert await harness.store.take_up(harness.query_id, "another") is None


async def test_what_was_given_back_is_taken_up_again(harness: Harness) -> None:
    _, old = await harness.take_up()
    await harness.store.release(old)
    _, new = await harness.take_up()
    assert new.fencing > old.fencing
    await harness.store.renew(new)


async def test_an_expired_lease_is_taken_over_and_its_holder_can_write_nothing(harness: Harness) -> None:
    _, old = await harness.take_up()
    await harness.expire()
    _, new = await harness.take_up()
    await harness.assert_powerless(old)
    await harness.store.finish(new, QueryOutcome.COMPLETED, "", {"values": 3})


async def test_who_drives_a_cancelled_query_can_write_nothing(harness: Harness) -> None:
    _, lease = await harness.take_up()
    await harness.cancel()
    await harness.assert_powerless(lease)
    assert await harness.store.take_up(harness.query_id, "another") is None


@pytest.mark.parametrize("outcome", QueryOutcome)
async def test_what_has_ended_is_not_taken_up(harness: Harness, outcome: QueryOutcome) -> None:
    _, lease = await harness.take_up()
    await harness.store.finish(lease, outcome, "because", None)
    assert await harness.store.take_up(harness.query_id, "another") is None
    await harness.assert_powerless(lease)
