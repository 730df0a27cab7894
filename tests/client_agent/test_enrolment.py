"""Enrolment over real HTTP."""

from __future__ import annotations

import base64
import socket
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from client_agent.certificates import certificate_of, key_fingerprint, key_matches_certificate, load_private, spki
from client_agent.enrolment import Token, Waiting, enrol
from client_agent.errors import EnrolmentError, FalseServer, MalformedToken, NotEnrolled, ServerUnreachable
from client_agent.identity import Home
from client_agent.servers import Servers
from protos.identity import proof_message
from tests.client_agent.api import EnrolmentApi
from tests.client_agent.pki import Authority


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_the_identity_holds_a_certified_key_and_where_the_server_is(api: EnrolmentApi, home: Home) -> None:
    api.servers = ["one.example.org:1", "not an address"]
    identity = enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert Servers(home.servers_file, identity.grpc_address).all == ("one.example.org:1", api.grpc_address)
    assert key_matches_certificate(identity)
    assert certificate_of(identity).issuer == api.authority.certificate.subject
    assert identity.enrolment.server_url == api.url
    assert identity.enrolment.client_name == "site-1"
    request = api.requests[0]
    assert request.keys() == {"token", "csr_pem", "name", "host", "agent_version", "platform"}
    assert request["token"] == api.authority.token
    key = x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


@pytest.mark.parametrize(
    "code", ["token_invalid", "token_expired", "token_spent", "token_revoked", "csr_invalid", "name_taken"]
)
def test_a_refusal_says_what_happened_and_what_to_do(api: EnrolmentApi, code: str, home: Home) -> None:
    problem = {"title": "Refused", "status": 403, "code": code, "detail": f"It is {code}.", "hint": "Ask for another."}
    api.refusal = (403, problem)
    with pytest.raises(EnrolmentError, match=rf"^It is {code}\. Ask for another\.$") as caught:
        enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert (caught.value.code, caught.value.retryable, caught.value.exit_code) == (code, False, 4)


def test_a_server_with_another_ca_never_sees_the_token(api: EnrolmentApi, home: Home) -> None:
    with pytest.raises(FalseServer, match=r"has another CA \(.{43}\) than the one the token was made for \(.{43}\)"):
        enrol(api.url, Token.parse(Authority().token), "site-1", home)
    assert not api.requests


def test_a_certificate_of_another_ca_is_not_accepted(api: EnrolmentApi, home: Home) -> None:
    token = Token.parse(api.authority.token)
    other = Authority()
    api.authority.key, api.authority.name = other.key, other.name
    with pytest.raises(EnrolmentError, match="no certificate signed by its CA"):
        enrol(api.url, token, "site-1", home)


def test_a_certificate_for_another_key_is_not_accepted(api: EnrolmentApi, home: Home) -> None:
    api.certified_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(EnrolmentError, match="another key"):
        enrol(api.url, Token.parse(api.authority.token), "site-1", home)


def test_a_failing_server_may_be_tried_again(api: EnrolmentApi, home: Home) -> None:
    api.refusal = (503, {})
    with pytest.raises(ServerUnreachable) as caught:
        enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert caught.value.retryable


def test_an_absent_server_may_be_tried_again(api: EnrolmentApi, home: Home) -> None:
    with pytest.raises(ServerUnreachable, match="No answer from http"):
        enrol("http://127.0.0.1:1", Token.parse(api.authority.token), "site-1", home)


def test_an_empty_name_is_refused_before_anything_is_sent(api: EnrolmentApi, home: Home) -> None:
    with pytest.raises(EnrolmentError, match="1 to 64 characters"):
        enrol(api.url, Token.parse(api.authority.token), "", home)
    assert not api.requests


@pytest.mark.parametrize("url", ["http://192.0.2.1", "http://fedui.example.org", "http://127.0.0.1.example.org"])
def test_plain_http_to_another_machine_needs_consent(authority: Authority, url: str, home: Home) -> None:
    with pytest.raises(EnrolmentError, match="--insecure-http"):
        enrol(url, Token.parse(authority.token), "site-1", home)


@pytest.mark.parametrize("url", ["fedui.example.org", "ftp://fedui.example.org", "https://"])
def test_an_address_must_be_one(authority: Authority, url: str, home: Home) -> None:
    with pytest.raises(EnrolmentError, match="not the address of a server"):
        enrol(url, Token.parse(authority.token), "site-1", home)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a b", "http://127.0.0.1:port"])
def test_an_address_with_a_slip_is_an_error_and_no_crash(authority: Authority, url: str, home: Home) -> None:
    with pytest.raises(EnrolmentError, match="address"):
        enrol(url, Token.parse(authority.token), "site-1", home)


def test_what_does_not_speak_http_is_told(authority: Authority, home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=_speak_ssh, args=(other,), daemon=True).start()
        with pytest.raises(ServerUnreachable, match="No answer"):
            enrol(f"http://127.0.0.1:{other.getsockname()[1]}", Token.parse(authority.token), "site-1", home)


def _speak_ssh(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


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


def test_a_crash_while_the_identity_is_replaced_loses_none(authority: Authority, home: Home) -> None:
    home.save(authority.identity("127.0.0.1:1"))
    home.identity_folder.rename(home.path / "identity.new")  # as between the two renames of a save
    assert home.is_enrolled
    assert home.load().grpc_address == "127.0.0.1:1"


# --- waiting for an operator -----------------------------------------------------------------------------------------


def test_the_agent_waits_until_it_is_admitted(api: EnrolmentApi, home: Home) -> None:
    api.answers_before_admission = 3
    waits: list[float] = []
    told: list[Waiting] = []

    identity = enrol(
        api.url, Token.parse(api.authority.token), "site-1", home, on_waiting=told.append, sleep=waits.append
    )

    assert waits == [2.0, 2.0, 2.0]
    assert [waiting.federation for waiting in told] == ["tests"]
    assert told[0].key_fingerprint == key_fingerprint(load_private(identity.key_pem))
    assert home.load() == identity
    assert home.pending() is None


def test_a_refusal_by_the_operator_is_told_and_ends_the_wait(api: EnrolmentApi, home: Home) -> None:
    api.answers_before_admission = 1
    problem = {"code": "admission_refused", "detail": "The operator has refused this client: unknown site."}

    def refuse(seconds: float) -> None:
        api.refusal = (403, problem)

    with pytest.raises(EnrolmentError, match="unknown site") as caught:
        enrol(api.url, Token.parse(api.authority.token), "site-1", home, sleep=refuse)
    assert caught.value.code == "admission_refused"
    assert home.pending() is None


def test_a_wait_that_was_broken_off_goes_on_with_the_same_key(api: EnrolmentApi, home: Home) -> None:
    api.answers_before_admission = 2
    token = Token.parse(api.authority.token)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enrol(api.url, token, "site-1", home, sleep=interrupt)
    enrol(api.url, token, "site-1", home, sleep=lambda seconds: None)

    first, second = (x509.load_pem_x509_csr(request["csr_pem"].encode()).public_key() for request in api.requests)
    assert first == second


def test_a_server_that_is_away_for_a_while_ends_no_wait(api: EnrolmentApi, home: Home) -> None:
    api.answers_before_admission = 1
    answers = iter([(503, {}), (429, {"code": "throttled"}), None, None])

    def next_answer(seconds: float) -> None:
        api.refusal = next(answers)

    assert enrol(api.url, Token.parse(api.authority.token), "site-1", home, sleep=next_answer)


# --- enrolling again -------------------------------------------------------------------------------------------------


def test_a_machine_that_enrols_again_shows_its_old_key(api: EnrolmentApi, home: Home) -> None:
    token = Token.parse(api.authority.token)
    old = enrol(api.url, token, "site-1", home)

    new = enrol(api.url, token, "site-1", home)

    assert "proof" not in api.requests[0]
    proof = api.requests[1]["proof"]
    assert proof["certificate_pem"].encode() == old.certificate_pem
    public_key = load_private(new.key_pem).public_key()
    message = proof_message(token.key_id, spki(public_key))
    signature = base64.b64decode(proof["signature"])
    load_private(old.key_pem).public_key().verify(signature, message, ec.ECDSA(hashes.SHA256()))
    assert new.key_pem != old.key_pem


def test_another_server_learns_nothing_of_an_old_identity(api: EnrolmentApi, home: Home) -> None:
    home.save(Authority().identity("127.0.0.1:1", server_url="https://elsewhere.example.org"))
    enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert "proof" not in api.requests[0]


# --- an authority that is being replaced -----------------------------------------------------------------------------


def test_an_authority_that_the_pinned_one_vouches_for_is_trusted_too(api: EnrolmentApi, home: Home) -> None:
    other = Authority("Next CA")
    api.bundle, api.links = api.authority.pem + other.pem, api.authority.vouch_for(other)
    identity = enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert identity.ca_pem == api.authority.pem + other.pem


@pytest.mark.parametrize("switched", [False, True])
def test_a_rotation_during_the_wait_leaves_nobody_behind(api: EnrolmentApi, home: Home, switched: bool) -> None:
    former, following = api.authority, Authority("Next CA")
    api.answers_before_admission = 1

    def rotate(seconds: float) -> None:
        issuer, other = (following, former) if switched else (former, following)
        api.authority, api.bundle = issuer, issuer.pem + other.pem
        api.links = former.vouch_for(following)

    identity = enrol(api.url, Token.parse(former.token), "site-1", home, sleep=rotate)
    assert identity.ca_pem == api.bundle


def test_an_authority_that_nobody_vouches_for_is_not_trusted(api: EnrolmentApi, home: Home) -> None:
    other = Authority("Next CA")
    api.bundle, api.links = api.authority.pem + other.pem, other.vouch_for(other)
    identity = enrol(api.url, Token.parse(api.authority.token), "site-1", home)
    assert identity.ca_pem == api.authority.pem
