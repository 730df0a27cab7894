"""The admin shows every model, and lets nobody change what services and engine write."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import models
from django.test import Client as Browser
from django.urls import reverse

from fedui.accounts.models import User
from fedui.federations.models import Federation
from tests.support.domain import a_client, a_run, with_rounds

OURS = [model for model in apps.get_models() if model.__module__.startswith("fedui.")]
EDITABLE: set[type[models.Model]] = {User}


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


def test_the_hash_of_a_token_is_not_shown(browser: Browser, federation: Federation) -> None:
    token = federation.tokens.get()

    page = browser.get(reverse("admin:clients_enrolmenttoken_change", args=[token.pk]))

    assert token.secret_sha256 not in page.content.decode()
