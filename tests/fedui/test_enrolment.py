"""What enrolment makes of a token and a signing request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connection

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Client, EnrolmentToken
from fedui.clients.names import NameRefused
from fedui.clients.pki import SigningRequestRefused
from fedui.clients.services import create_token
from fedui.clients.tokens import TokenRefused, TokenText
from fedui.errors import DomainError, NameTaken
from fedui.federations.models import Federation
from tests.support.domain import a_csr, a_federation, a_user


def use(text: str, name: str = "", csr_pem: str | None = None) -> Client:
    applicant = Applicant(name, "host", "0.1.0", "Linux", "192.0.2.1")
    client = enrol(text, csr_pem if csr_pem is not None else a_csr(), applicant).client
    assert client
    return client


def test_a_client_gets_what_the_token_says(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner, labels={"region": "north"})

    client = use(text, "  hosp-1 ")

    assert client.federation == federation
    assert client.name == "hosp-1"
    assert client.labels == {"region": "north"}
    assert client.agent_version == "0.1.0"
    assert client.platform == "Linux"
    assert client.certificates.count() == 1


def test_numbers_follow_the_order_of_enrolment_in_each_federation(federation: Federation, owner: User) -> None:
    other = a_federation("lungs", owner)
    texts = [create_token(place, owner)[1] for place in (federation, other, federation)]

    assert [use(text).number for text in texts] == [1, 1, 2]


def test_without_a_name_one_is_made(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner, max_uses=3)
    use(text, "client-2")

    assert [use(text).name, use(text).name] == ["client-3", "client-4"]


@pytest.mark.parametrize("name", ["hosp-1", "HOSP-1", " hosp-1"])
def test_a_name_that_is_taken_spends_no_use(federation: Federation, owner: User, name: str) -> None:
    token, text = create_token(federation, owner, max_uses=2)
    use(text, "hosp-1")

    with pytest.raises(NameTaken, match="has a client .* already"):
        use(text, name)

    token.refresh_from_db()
    assert token.uses == 1
    use(text, "hosp-2")


def test_the_same_name_in_another_federation_is_free(federation: Federation, owner: User) -> None:
    other = a_federation("lungs", owner)
    for place in (federation, other):
        use(create_token(place, owner)[1], "hosp-1")

    assert Client.objects.filter(name="hosp-1").count() == 2


def test_a_bad_signing_request_spends_no_use_and_leaves_no_client(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)

    with pytest.raises(SigningRequestRefused):
        use(text, csr_pem="garbage")

    token.refresh_from_db()
    assert token.uses == 0
    assert not federation.clients.exists()


@pytest.mark.parametrize("name", ["Charité", "Hôpital St. Louis", "東京-1", "अस्पताल", "a", "x" * 63, "0_b.c-d"])
def test_names_of_all_scripts(federation: Federation, owner: User, name: str) -> None:
    _, text = create_token(federation, owner)

    assert use(text, name).name == name


def test_two_ways_to_write_an_accent_are_one_name(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner, max_uses=2)
    use(text, "Charit\u00e9")

    with pytest.raises(NameTaken):
        use(text, "Charite\u0301")


@pytest.mark.parametrize(
    "name",
    ["x" * 64, "a\nb", "a\tb", "a\x00b", "a\u202eb", "a\u200bb", "<script>", "a/b", "-rf", ".hidden", "😀", "a\u00a0b"],
)
def test_names_that_mislead_are_refused(federation: Federation, owner: User, name: str) -> None:
    token, text = create_token(federation, owner)

    with pytest.raises(NameRefused) as caught:
        use(text, name)

    token.refresh_from_db()
    assert token.uses == 0
    assert "1 to 63" in caught.value.hint


def test_what_an_agent_says_of_itself_is_cut_to_what_fits(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner)

    client = enrol(text, a_csr(), Applicant("", "h" * 500, "1" * 100, "L" * 500, None)).client

    assert client
    client.refresh_from_db()
    assert (len(client.agent_version), len(client.platform)) == (32, 120)


def test_enrolment_is_audited(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)
    client = use(text, "hosp-1")

    event = AuditEvent.objects.get(action="client.enrolled")
    assert (event.federation, event.actor, event.actor_name) == (federation, None, "agent")
    assert (event.subject, event.address) == (str(client), "192.0.2.1")
    assert event.details["token"] == token.key_id


def test_a_refused_attempt_is_audited_without_its_secret(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)
    guess = TokenText.new("f" * 43)
    attempts: list[tuple[str, str]] = [
        (str(TokenText(token.key_id, guess.secret, guess.fingerprint)), a_csr()),
        (text, "garbage"),
        ("nonsense", a_csr()),
    ]
    for token_text, csr_pem in attempts:
        with pytest.raises(DomainError):
            use(token_text, csr_pem=csr_pem)

    events = AuditEvent.objects.filter(action="client.enrolment_refused").order_by("id")
    assert [event.federation for event in events] == [federation, federation, None]
    assert [event.details["code"] for event in events] == ["token_invalid", "csr_invalid", "token_invalid"]
    assert [event.subject for event in events] == [str(token), str(token), "unknown token"]
    assert guess.secret not in str(list(events.values()))
    assert TokenText.parse(text).secret not in str(list(events.values()))


@pytest.mark.django_db(transaction=True)
def test_of_twenty_who_use_the_last_use_at_once_one_wins() -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    _, text = create_token(federation, owner)

    outcomes = in_threads([partial(use, text)] * 20)

    assert sum(isinstance(outcome, Client) for outcome in outcomes) == 1
    assert {outcome.code for outcome in outcomes if isinstance(outcome, TokenRefused)} == {"token_spent"}
    assert EnrolmentToken.objects.get().uses == 1
    assert federation.clients.count() == 1


@pytest.mark.django_db(transaction=True)
def test_clients_that_enrol_at_once_by_different_tokens_get_different_numbers() -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    texts = [create_token(federation, owner)[1] for _ in range(12)]

    outcomes = in_threads([partial(use, text) for text in texts])

    assert all(isinstance(outcome, Client) for outcome in outcomes)
    assert sorted(federation.clients.values_list("number", flat=True)) == list(range(1, 13))


def in_threads(calls: Sequence[Callable[[], Client]]) -> list[Client | DomainError]:
    def attempt(call: Callable[[], Client]) -> Client | DomainError:
        try:
            return call()
        except DomainError as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(attempt, calls))
