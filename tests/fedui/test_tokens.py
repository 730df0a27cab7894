"""Enrolment tokens: made, stored, refused, revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.admission import Applicant, enrol
from fedui.clients.authorities import trust
from fedui.clients.models import Client, EnrolmentToken
from fedui.clients.services import create_token, revoke_token
from fedui.clients.tokens import TokenRefused, TokenText
from fedui.errors import ErrorCode
from fedui.federations.models import Federation
from tests.support.domain import a_csr


def use(text: str, name: str = "") -> Client:
    client = enrol(text, a_csr(), Applicant(name, "host", "0.1.0", "Linux", "192.0.2.1")).client
    assert client
    return client


def test_the_text_says_which_token_and_which_authority(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)

    parsed = TokenText.parse(text)
    assert parsed.key_id == token.key_id
    assert parsed.fingerprint == trust().issuer.fingerprint
    assert len(parsed.secret) == 43
    assert str(parsed) == text


def test_only_a_hash_of_the_secret_is_stored(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner)
    secret = TokenText.parse(text).secret

    [stored] = EnrolmentToken.objects.values()
    assert secret not in str(stored)
    assert secret not in str(list(AuditEvent.objects.values()))


def test_a_token_is_usable_until_it_is_spent(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner, max_uses=2)

    use(text)
    use(text)
    with pytest.raises(TokenRefused, match="has been used 2 of 2 times") as caught:
        use(text)

    token.refresh_from_db()
    assert caught.value.code == ErrorCode.TOKEN_SPENT
    assert token.state == "spent"
    assert federation.clients.count() == 2


def test_an_expired_token_is_refused(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner, lifetime=timedelta(seconds=-1))

    with pytest.raises(TokenRefused, match=r"expired at \d{4}-") as caught:
        use(text)

    assert caught.value.code == ErrorCode.TOKEN_EXPIRED
    assert "new token" in caught.value.hint


def test_a_revoked_token_is_refused(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)

    revoke_token(token, owner)

    with pytest.raises(TokenRefused, match="has been revoked") as caught:
        use(text)
    assert caught.value.code == ErrorCode.TOKEN_REVOKED


def test_revoking_twice_is_noted_once_and_keeps_the_first_time(federation: Federation, owner: User) -> None:
    token, _ = create_token(federation, owner)

    revoke_token(token, owner)
    first = token.revoked_at
    revoke_token(token, owner)

    assert token.revoked_at == first
    assert AuditEvent.objects.filter(action="token.revoked").count() == 1


def test_an_unknown_token_and_a_wrong_secret_look_the_same(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)
    unknown = TokenText.new(trust().issuer.fingerprint)
    wrong = TokenText(token.key_id, unknown.secret, unknown.fingerprint)

    errors = []
    for bad in (str(unknown), str(wrong)):
        with pytest.raises(TokenRefused) as caught:
            use(bad)
        errors.append((caught.value.code, str(caught.value), caught.value.hint))

    assert errors[0] == errors[1]
    assert errors[0][0] == ErrorCode.TOKEN_INVALID
    use(text)  # a wrong guess spends nothing


def test_a_wrong_secret_of_a_revoked_token_does_not_tell_that_it_is_revoked(
    federation: Federation, owner: User
) -> None:
    token, _ = create_token(federation, owner)
    revoke_token(token, owner)
    guess = TokenText.new(trust().issuer.fingerprint)

    with pytest.raises(TokenRefused) as caught:
        use(str(TokenText(token.key_id, guess.secret, guess.fingerprint)))

    assert caught.value.code == ErrorCode.TOKEN_INVALID


@pytest.mark.parametrize(
    "text", ["", "fle_", "fle_abc.def.ghi", "x" * 5000, "fle_" + "a" * 10 + "." + "é" * 43 + "." + "b" * 43]
)
def test_what_is_no_token_at_all_is_refused(db: None, text: str) -> None:
    with pytest.raises(TokenRefused) as caught:
        use(text)

    assert caught.value.code == ErrorCode.TOKEN_INVALID


def test_usable_and_state_agree(federation: Federation, owner: User) -> None:
    create_token(federation, owner)
    create_token(federation, owner, lifetime=timedelta(seconds=-1))
    revoked, _ = create_token(federation, owner)
    revoke_token(revoked, owner)
    _, spent = create_token(federation, owner)
    use(spent)

    usable = set(EnrolmentToken.objects.all().usable(timezone.now()))
    assert {token.state for token in EnrolmentToken.objects.all()} == {"usable", "expired", "revoked", "spent"}
    assert usable == {token for token in EnrolmentToken.objects.all() if token.state == "usable"}
