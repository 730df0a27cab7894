"""What an agent needs before it has a certificate. Public: the token is the credential."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.api.parsers import SmallJSONParser
from fedui.api.throttles import EnrolmentThrottle
from fedui.clients import pki
from fedui.clients.services import enrol


class EnrolmentRequest(serializers.Serializer[dict[str, str]]):
    token = serializers.CharField(max_length=200)
    csr_pem = serializers.CharField(max_length=pki.MAX_REQUEST_BYTES)
    name = serializers.CharField(max_length=255, default="", allow_blank=True)
    agent_version = serializers.CharField(max_length=32, default="", allow_blank=True)
    platform = serializers.CharField(max_length=1000, default="", allow_blank=True)


class CertificateAuthority(APIView):
    """The certificate authority, for an agent to compare with its token before it sends anything."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        return Response({"ca_pem": pki.ca_certificate_pem().decode(), "fingerprint": pki.fingerprint()})


class Enrol(APIView):
    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (SmallJSONParser,)
    throttle_classes = (EnrolmentThrottle,)

    def post(self, request: Request) -> Response:
        form = EnrolmentRequest(data=request.data)
        form.is_valid(raise_exception=True)
        values: dict[str, Any] = form.validated_data
        enrolment = enrol(
            values["token"],
            values["csr_pem"],
            values["name"],
            values["agent_version"],
            values["platform"],
            request.META.get("REMOTE_ADDR") or None,
        )
        return Response(
            {
                "client_id": str(enrolment.client.pk),
                "client_name": enrolment.client.name,
                "federation": enrolment.client.federation.name,
                "certificate_pem": enrolment.certificate_pem,
                "ca_pem": pki.ca_certificate_pem().decode(),
                "grpc_address": settings.GRPC_ADDRESS,
            },
            status=201,
        )
