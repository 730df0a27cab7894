"""Enrolment over real HTTP."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from client_agent.certificates import certificate_of, key_matches_certificate
from client_agent.enrolment import Token, enrol
from client_agent.errors import EnrolmentError, FalseServer, MalformedToken, NotEnrolled, ServerUnreachable
from client_agent.identity import Home
from tests.client_agent.api import EnrolmentApi
from tests.client_agent.pki import Authority


def test_the_identity_holds_a_certified_key_and_where_the_server_is(api: EnrolmentApi) -> None:
    identity = enrol(api.url, Token.parse(api.authority.token), "site-1")
    assert key_matches_certificate(identity)
    assert certificate_of(identity).issuer == api.authority.certificate.subject
    assert identity.enrolment.server_url == api.url
    assert identity.enrolment.client_name == "site-1"
    request = api.requests[0]
    assert request.keys() == {"token", "csr_pem", "name", "agent_version", "platform"}
    assert request["token"] == api.authority.token
    key = x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


@pytest.mark.parametrize(
    "code", ["token_invalid", "token_expired", "token_spent", "token_revoked", "csr_invalid", "name_taken"]
)
def test_a_refusal_says_what_happened_and_what_to_do(api: EnrolmentApi, code: str) -> None:
    problem = {"title": "Refused", "status": 403, "code": code, "detail": f"It is {code}.", "hint": "Ask for another."}
    api.refusal = (403, problem)
    with pytest.raises(EnrolmentError, match=rf"^It is {code}\. Ask for another\.$") as caught:
        enrol(api.url, Token.parse(api.authority.token), "site-1")
    assert (caught.value.code, caught.value.retryable, caught.value.exit_code) == (code, False, 4)


def test_a_server_with_another_ca_never_sees_the_token(api: EnrolmentApi) -> None:
    with pytest.raises(FalseServer, match=r"has another CA \(.{43}\) than the one the token was made for \(.{43}\)"):
        enrol(api.url, Token.parse(Authority().token), "site-1")
    assert not api.requests


def test_a_certificate_of_another_ca_is_not_accepted(api: EnrolmentApi) -> None:
    token = Token.parse(api.authority.token)
    other = Authority()
    api.authority.key, api.authority.name = other.key, other.name
    with pytest.raises(EnrolmentError, match="no certificate signed by its CA"):
        enrol(api.url, token, "site-1")


def test_a_certificate_for_another_key_is_not_accepted(api: EnrolmentApi) -> None:
    api.certified_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(EnrolmentError, match="another key"):
        enrol(api.url, Token.parse(api.authority.token), "site-1")


def test_a_failing_server_may_be_tried_again(api: EnrolmentApi) -> None:
    api.refusal = (503, {})
    with pytest.raises(ServerUnreachable) as caught:
        enrol(api.url, Token.parse(api.authority.token), "site-1")
    assert caught.value.retryable


def test_an_absent_server_may_be_tried_again(api: EnrolmentApi) -> None:
    with pytest.raises(ServerUnreachable, match="No answer from http"):
        enrol("http://127.0.0.1:1", Token.parse(api.authority.token), "site-1")


def test_an_empty_name_is_refused_before_anything_is_sent(api: EnrolmentApi) -> None:
    with pytest.raises(EnrolmentError, match="1 to 64 characters"):
        enrol(api.url, Token.parse(api.authority.token), "")
    assert not api.requests


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://fedui.example.org", "http://127.0.0.1.example.org"])
def test_plain_http_to_another_machine_needs_consent(authority: Authority, url: str) -> None:
    with pytest.raises(EnrolmentError, match="--insecure-http"):
        enrol(url, Token.parse(authority.token), "site-1")


@pytest.mark.parametrize("url", ["fedui.example.org", "ftp://fedui.example.org", "https://"])
def test_an_address_must_be_one(authority: Authority, url: str) -> None:
    with pytest.raises(EnrolmentError, match="not the address of a server"):
        enrol(url, Token.parse(authority.token), "site-1")


@pytest.mark.parametrize("text", ["", "fle_", f"fle_{'a' * 10}.{'s' * 43}", f"fle_{'A' * 10}.{'s' * 43}.{'f' * 43}"])
def test_a_malformed_token_is_found_without_the_server(text: str) -> None:
    with pytest.raises(MalformedToken, match="not an enrolment token"):
        Token.parse(text)


def test_spaces_around_a_copied_token_do_no_harm(authority: Authority) -> None:
    assert Token.parse(f"  {authority.token}\n").text == authority.token


def test_a_home_keeps_its_secrets_private_and_is_replaced_as_a_whole(authority: Authority, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.save(authority.identity("127.0.0.1:1"))
    replacement = authority.identity("127.0.0.1:2")
    home.save(replacement)
    assert home.load() == replacement
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.key_file.stat().st_mode) == 0o600
    assert [path.name for path in home.path.iterdir()] == ["identity"]


def test_an_empty_home_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled, match="fedagent enroll"):
        Home(tmp_path).load()
