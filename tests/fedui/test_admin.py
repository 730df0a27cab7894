"""The admin shows every model, and lets nobody change what services and engine write."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection, models
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts.models import Alert, Delivery
from fedui.alerts.webhooks import create_webhook
from fedui.analytics.models import Query
from fedui.api.models import StoredAnswer
from fedui.audit.services import check_log
from fedui.bookmarks.services import save_view
from fedui.catalog.models import App
from fedui.federations.invitations import invite
from fedui.federations.models import Federation, Role
from fedui.keys.models import ApiKey
from fedui.registry.services import promote
from fedui.reports.models import Naming
from fedui.reports.shares import share
from fedui.runs import commands, digests
from fedui.runs.commands import Order
from fedui.runs.models import ModelVersion, RunRules
from fedui.workers.models import Worker
from tests.support.domain import a_client, a_federation, a_run, with_rounds
from tests.support.population import World, populate

OURS = [model for model in apps.get_models() if model.__module__.startswith("fedui.")]
EDITABLE: set[type[models.Model]] = {User}
MOST_QUERIES = 16
"""Of a list or of a row: session, user, permissions, filters, and what a row's own name is made of."""


@pytest.fixture
def browser(federation: Federation, owner: User) -> Browser:
    with_rounds(a_run(federation, owner), [a_client(federation)], 1)
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root", password="secret"))
    return browser


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_every_model_has_a_list_that_can_be_searched(browser: Browser, model: type[models.Model]) -> None:
    response = browser.get(reverse(f"admin:{model._meta.label_lower.replace('.', '_')}_changelist"), {"q": "a"})

    assert response.status_code == 200
    assert admin.site._registry[model].search_fields


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_many_of_a_model_are_called_in_english(model: type[models.Model]) -> None:
    many = str(model._meta.verbose_name_plural)
    assert not re.search("[^aeiou]ys$|ss$|^api ", many), many


@pytest.mark.parametrize("model", [model for model in OURS if model not in EDITABLE], ids=lambda model: model.__name__)
def test_rows_of_services_and_engine_can_only_be_read(browser: Browser, model: type[models.Model]) -> None:
    name = f"admin:{model._meta.label_lower.replace('.', '_')}"
    row = model._default_manager.first()

    assert model in admin.site._registry
    assert browser.get(reverse(f"{name}_add")).status_code == 403
    if row is not None:
        address = reverse(f"{name}_change", args=[row.pk])
        assert browser.get(address).status_code == 200
        assert browser.post(address, {}).status_code == 403


def test_lists_and_rows_cost_the_same_however_many(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that shows one row a page takes as many queries as one that shows all."""
    _two_of_each(populate())
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root", password="secret"))
    alone: set[str] = set()
    for model in OURS:
        name, rows = f"admin:{model._meta.label_lower.replace('.', '_')}", list(model._default_manager.all()[:2])
        costs = []
        for page_size in (1, 100):
            monkeypatch.setattr(admin.site._registry[model], "list_per_page", page_size)
            costs.append(_cost(browser, reverse(f"{name}_changelist")))
        assert costs[1] <= min(costs[0], MOST_QUERIES), model
        for row in rows:
            assert _cost(browser, reverse(f"{name}_change", args=[row.pk])) <= MOST_QUERIES, model
        if len(rows) < 2:
            alone.add(model.__name__)
    assert alone == {"ChainHead"}  # which is one; a second row of any other is what the costs are compared by


def _two_of_each(world: World) -> None:
    """Rows of what the population has fewer of."""
    second = a_federation("second", world.owner)
    for federation in (world.federation, second):
        run = world.run if federation == world.federation else a_run(federation, world.owner)
        invite(federation, world.owner, Role.AUDITOR)
        client = a_client(federation, f"new to {federation}")
        App.objects.create(federation=federation, name="another", version="1", signature=[])
        RunRules.objects.create(federation=federation)
        commands.extend(run, Order(world.owner), num_rounds=run.num_rounds + 5)
        share(run, world.owner, naming=Naming.NAMES, lifetime=timedelta(days=1))
        save_view(federation, world.owner, "mine", f"/f/{federation.slug}/runs/")
        Query.objects.create(federation=federation, app=run.app, config={"column": "age"}, created_by=world.owner)
        model = ModelVersion.objects.create(run=run, round_number=99, key=f"{federation.pk}", sha256="a" * 64, size=1)
        promote(model, world.owner, f"of-{federation.slug}")
        check_log()
        ends = timezone.now() + timedelta(days=1)
        ApiKey.objects.create(
            federation=federation, user=world.owner, name="ci", key_id=federation.slug, scopes=["read"], expires_at=ends
        )
        webhook, _ = create_webhook(federation, world.owner, name="ops", url="https://example.org/hook")
        Delivery.objects.create(federation=federation, webhook=webhook, subject="s", body="{}")
        rule = federation.alert_rules.first()
        assert rule
        Alert.objects.create(
            federation=federation,
            rule=rule,
            kind=rule.kind,
            severity=rule.severity,
            subject="s",
            title="t",
            fired_at=ends,
        )
        Worker.objects.create(key=federation.slug, host="h", pid=1, bind="b", address="a", expires_at=ends)
        StoredAnswer.objects.create(actor="1", key_hash=federation.slug, request_hash="b", expires_at=ends)
        more = a_run(federation, world.owner, "more")
        with_rounds(more, [client], 1)
        digests.ensure(more)


def _cost(browser: Browser, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert browser.get(address).status_code == 200
    return len(queries)


def test_the_hash_of_a_token_is_not_shown(browser: Browser, federation: Federation) -> None:
    token = federation.tokens.get()

    page = browser.get(reverse("admin:clients_enrolmenttoken_change", args=[token.pk]))

    assert token.secret_sha256 not in page.content.decode()


def test_no_page_shows_the_hash_of_a_secret() -> None:
    for model in OURS:
        if any(field.name == "secret_sha256" for field in model._meta.fields):
            assert "secret_sha256" in (admin.site._registry[model].exclude or ()), model
