from __future__ import annotations

from django.core.cache import cache
from django.db import connection
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

import fedui


class Health(APIView):
    """200 when the web process can do its work. An error here reaches the exception handler like any other."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    def get(self, request: Request) -> Response:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        cache.get("health")
        return Response({"status": "ok", "version": fedui.__version__})
