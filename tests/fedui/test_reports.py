"""Reports of runs, and the links by which they are shared: what they hold, who may, and for how long."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member
from fedui.reports import charts
from fedui.reports.content import report_of
from fedui.reports.models import Naming, Share
from fedui.reports.shares import LONGEST, MOST_OPEN, ShareRefused, share
from fedui.runs import commands
from fedui.runs.commands import Order
from fedui.runs.models import Participation, Round, Run
from tests.support.domain import a_client, a_member, a_run, a_user, with_rounds

WEEK = timedelta(days=7)


@pytest.fixture
def clients(federation: Federation) -> list[Client]:
    return [a_client(federation, name) for name in ("st-mary", "st-mary-annex", "elm")]


@pytest.fixture
def run(federation: Federation, owner: User, clients: list[Client]) -> Run:
    run = a_run(federation, owner, "<script>alert(1)</script>")
    with_rounds(run, clients[:2], 3)
    Participation.objects.filter(client=clients[0]).update(flagged=True, flag_reason="unlike st-mary-annex, said owner")
    Round.objects.filter(run=run, number=2).update(reason="st-mary was late, elm is away")
    commands.pause(run, Order(owner))
    return run


def link_of(run: Run, owner: User, naming: Naming = Naming.NUMBERS) -> str:
    return "/" + share(run, owner, naming=naming, lifetime=WEEK)[1].split("/", 3)[3]


def test_a_link_opens_the_report_for_anybody_and_counts(client: Browser, run: Run, owner: User) -> None:
    link = link_of(run, owner, Naming.NAMES)
    response = client.get(link)
    page = response.content.decode()
    assert response.status_code == 200
    assert "st-mary-annex" in page and "Round" in page and "<svg" in page
    assert "noindex" in response.headers["X-Robots-Tag"] and "no-store" in response.headers["Cache-Control"]
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert Share.objects.get().opened == 1
    assert AuditEvent.objects.filter(action="share.opened").count() == 1
    secret = link.split("/")[-2]
    assert len(secret) >= 43 and secret not in str(list(Share.objects.values()))


def test_the_report_is_one_file_without_scripts_or_addresses(client: Browser, run: Run, owner: User) -> None:
    response = client.get(link_of(run, owner) + "?download=1")
    page = response.content.decode()
    assert "attachment" in response.headers["Content-Disposition"]
    assert "<script" not in page and "&lt;script&gt;" in page
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "@media print" in page


def test_by_numbers_no_name_is_in_the_report(client: Browser, run: Run, owner: User) -> None:
    page = client.get(link_of(run, owner)).content.decode()
    assert "Client 1" in page and "Client 2" in page and "Person 1" in page
    assert "another client is away" in page
    for name in ("st-mary", "elm is", "owner"):
        assert name not in page, name


def test_a_link_ends_when_it_expires_or_is_taken_back(client: Browser, run: Run, owner: User) -> None:
    links = [link_of(run, owner) for _ in range(2)]
    Share.objects.filter(pk=Share.objects.latest("pk").pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    client.force_login(owner)
    client.post(f"/f/hearts/runs/{run.pk}/shares/{Share.objects.earliest('pk').pk}/revoke/")
    client.logout()
    answers = [client.get(link) for link in [*links, "/reports/nothing-like-it/"]]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert len({answer.content for answer in answers}) == 1
    assert AuditEvent.objects.filter(action="share.revoked").exists()


def test_guesses_are_counted(client: Browser, run: Run, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedui.reports.views.LINKS_PER_MINUTE", 2)
    answers = [client.get("/reports/guess/").status_code for _ in range(4)]
    assert answers == [404, 404, 429, 429]
    assert client.get(link_of(run, owner)).status_code == 429
    assert AuditEvent.objects.filter(action="share.throttled").count() == 1


def test_who_shares_and_who_sees_the_links(
    client: Browser, run: Run, clients: list[Client], federation: Federation, stranger: User
) -> None:
    new, listed = f"/f/hearts/runs/{run.pk}/shares/new/", f"/f/hearts/runs/{run.pk}/shares/"
    form = {"days": 7, "naming": "numbers", "note": "The board"}
    client.force_login(a_member(federation, Role.RESEARCHER))
    assert client.post(new, form).status_code == 403
    site_admin = a_user("site")
    add_member(
        federation, site_admin, Role.SITE_ADMIN, federation.memberships.get(role=Role.OWNER).user, clients=clients[:1]
    )
    client.force_login(site_admin)
    assert client.get(f"/f/hearts/runs/{run.pk}/report/").status_code == 403
    client.force_login(stranger)
    assert client.post(new, form).status_code == client.get(listed).status_code == 404
    client.force_login(a_member(federation, Role.OPERATOR))
    made = client.post(new, form)
    assert "/reports/" in made.content.decode()
    assert client.post(new, {"days": 3650, "naming": "numbers"}).status_code == 422
    again = client.get(listed, headers={"hx-request": "true"}).content.decode()
    assert "The board" in again and "/reports/" not in again and "<html" not in again
    assert "st-mary" in client.get(f"/f/hearts/runs/{run.pk}/report/").content.decode()
    assert "st-mary" not in client.get(f"/f/hearts/runs/{run.pk}/report/?naming=numbers").content.decode()


def test_links_are_bounded_in_time_and_number(run: Run, owner: User) -> None:
    with pytest.raises(ShareRefused):
        share(run, owner, naming=Naming.NAMES, lifetime=LONGEST + WEEK)
    for _ in range(MOST_OPEN):
        link_of(run, owner)
    with pytest.raises(ShareRefused, match="open links already"):
        link_of(run, owner)


def test_a_report_costs_the_same_however_long_the_run(run: Run, federation: Federation, owner: User) -> None:
    long = a_run(federation, owner, "long")
    with_rounds(long, [a_client(federation, f"more-{number}") for number in range(5)], 20)
    costs = []
    for one in (run, long):
        with CaptureQueriesContext(connection) as queries:
            report_of(
                Run.objects.select_related("federation", "strategy_version__strategy", "created_by").get(pk=one.pk),
                Naming.NAMES,
            )
        costs.append(len(queries))
    assert costs[0] == costs[1] <= 9


def test_a_report_of_a_run_that_has_not_begun(client: Browser, federation: Federation, owner: User) -> None:
    run = a_run(federation, owner, "new")
    client.force_login(owner)
    page = client.get(f"/f/hearts/runs/{run.pk}/report/").content.decode()
    assert "No round has begun" in page and "No client has taken part yet" in page


def test_thinning_keeps_peaks_and_ends() -> None:
    line = [(float(n), 100.0 if n == 777 else 0.0) for n in range(5000)]
    kept = charts.thinned(line)
    assert len(kept) <= charts.MAX_POINTS + 2
    assert (777.0, 100.0) in kept and kept[0] == line[0] and kept[-1] == line[-1]
    assert charts.ticks(0, 1) == pytest.approx([0, 0.5, 1]) or len(charts.ticks(0, 1)) <= 6
    assert str(charts.lines({"x": [(1, 0.5)]}, label="one", value=str)).startswith("<svg")
    assert charts.lines({}, label="none", value=str) == charts.bars([], label="none") == ""
