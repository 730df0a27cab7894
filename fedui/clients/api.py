"""What an agent needs before it has a certificate. Public: the token is the credential."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.conf import settings
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.access import Access
from fedui.api.serializers import Gives, TolerantBody
from fedui.api.throttles import AdmissionThrottle, EnrolmentThrottle
from fedui.api.views import ApiView
from fedui.clients.admission import Applicant, Proof, collect, enrol
from fedui.clients.authorities import trust
from fedui.clients.models import Admission
from fedui.errors import ErrorCode
from fedui.workers import post
from protos.limits import MAX_CSR_BYTES

ASK_AGAIN_SECONDS = 3
_NOT_KEPT = {"Cache-Control": "no-store"}
"""The answer changes when an operator has decided: no proxy may keep it."""


class ProofOfOldKey(serializers.Serializer[Any]):
    certificate_pem = serializers.CharField(max_length=MAX_CSR_BYTES)
    signature = serializers.CharField(max_length=1000)


class EnrolmentRequest(TolerantBody):
    token = serializers.CharField(max_length=200)
    csr_pem = serializers.CharField(max_length=MAX_CSR_BYTES)
    name = serializers.CharField(max_length=255, default="", allow_blank=True)
    host = serializers.CharField(max_length=255, default="", allow_blank=True)
    agent_version = serializers.CharField(max_length=32, default="", allow_blank=True)
    platform = serializers.CharField(max_length=1000, default="", allow_blank=True)
    proof = ProofOfOldKey(required=False)


class AuthorityOut(serializers.Serializer[Any]):
    ca_pem = serializers.CharField(help_text="All authorities that are trusted now.")
    fingerprint = serializers.CharField(help_text="SHA-256 of the one that issues.")
    links_pem = serializers.CharField(help_text="Certificates by which former authorities vouch for later ones.")


class AdmittedOut(serializers.Serializer[Any]):
    client_id = serializers.UUIDField()
    client_name = serializers.CharField()
    federation = serializers.CharField()
    certificate_pem = serializers.CharField()
    ca_pem = serializers.CharField()
    grpc_address = serializers.CharField()
    servers = serializers.ListField(
        child=serializers.CharField(), help_text="Where the workers are, as host:port; one of them serves."
    )


class AgentView(ApiView):
    """For agents, before they have a certificate: no account, and asking again is harmless."""

    noun = "enrolment"
    authentication_classes = ()
    repeatable = False


class CertificateAuthority(AgentView):
    """The certificate authorities, for an agent to compare with its token before it sends anything."""

    verbs = {"GET": "get_authorities"}
    acts = {"GET": Access.PUBLIC}
    gives = {"GET": Gives(AuthorityOut, sparse=False)}

    def get(self, request: Request) -> Response:
        present = trust()
        return Response(
            {
                "ca_pem": present.bundle_pem.decode(),
                "fingerprint": present.issuer.fingerprint,
                "links_pem": present.links_pem.decode(),
            }
        )


class Enrol(AgentView):
    """Use a token: 201 with a certificate, or 202 while the machine waits for an operator."""

    verbs = {"POST": "enrol"}
    acts = {"POST": Access.PUBLIC}
    takes = {"POST": EnrolmentRequest}
    gives = {"POST": Gives(AdmittedOut, 201, also={202: "The machine waits for an operator."})}
    refusals = {
        "POST": (
            ErrorCode.TOKEN_INVALID, ErrorCode.TOKEN_EXPIRED, ErrorCode.TOKEN_SPENT, ErrorCode.TOKEN_REVOKED, ErrorCode.CSR_INVALID,
            ErrorCode.ADMISSION_REFUSED, ErrorCode.NAME_TAKEN, ErrorCode.UNAVAILABLE,
        )
    }  # fmt: skip
    throttle_classes = (EnrolmentThrottle,)

    def post(self, request: Request) -> Response:
        values = self.body()
        applicant = Applicant(
            values["name"],
            values["host"],
            values["agent_version"],
            values["platform"],
            request.META.get("REMOTE_ADDR") or None,
        )
        proof = Proof(**values["proof"]) if "proof" in values else None
        return _answer(enrol(values["token"], values["csr_pem"], applicant, proof))


class AdmissionState(AgentView):
    """Whether a machine is admitted yet. Its number is known to the machine and to operators; a certificate is no secret."""

    verbs = {"GET": "collect"}
    acts = {"GET": Access.PUBLIC}
    gives = {"GET": Gives(AdmittedOut, 201, sparse=False, also={202: "The machine waits for an operator."})}
    refusals = {"GET": (ErrorCode.ADMISSION_REFUSED, ErrorCode.UNAVAILABLE)}
    throttle_classes = (AdmissionThrottle,)

    def get(self, request: Request, admission_id: UUID) -> Response:
        get_object_or_404(Admission, pk=admission_id)
        return _answer(collect(admission_id))


def _answer(admission: Admission) -> Response:
    if admission.client is None or admission.certificate is None:
        waiting = {"admission": str(admission.pk), "federation": admission.federation.name}
        return Response(waiting | {"ask_again_seconds": ASK_AGAIN_SECONDS}, status=202, headers=_NOT_KEPT)
    return Response(
        {
            "client_id": str(admission.client.pk),
            "client_name": admission.client.name,
            "federation": admission.client.federation.name,
            "certificate_pem": admission.certificate.pem,
            "ca_pem": trust().bundle_pem.decode(),
            "grpc_address": settings.GRPC_ADDRESS,
            "servers": post.addresses(),
        },
        status=201,
        headers=_NOT_KEPT,
    )
