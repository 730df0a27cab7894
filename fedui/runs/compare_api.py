from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.federations.models import Federation
from fedui.runs.comparison import ComparedRun, Comparison, asked


class RunComparison(APIView):
    """Two to eight runs on common axes: `?runs=3,1`, and optionally `metric`, `target` and `base`."""

    def get(self, request: Request, slug: str) -> Response:
        federation = get_object_or_404(Federation.objects.visible_to(request.user), slug=slug)
        return Response(_payload(asked(federation, request.query_params)))


def _payload(compared: Comparison) -> dict[str, Any]:
    return {
        "metric": compared.metric,
        "metrics": compared.metrics,
        "target": compared.target,
        "base": compared.runs[compared.base].run.pk,
        "runs": [_run(one) for one in compared.runs],
        "results": [{"label": row.label, "kind": row.kind, "values": row.values} for row in compared.results()],
        "settings": [{"name": row.name, "values": row.values, "differs": row.differs} for row in compared.settings()],
    }


def _run(one: ComparedRun) -> dict[str, Any]:
    """A point of a curve is round, seconds since the start, bytes so far, value."""
    return {
        "id": one.run.pk,
        "name": one.run.name,
        "status": one.run.status,
        "ended": one.run.is_terminal,
        "sources": one.sources,
        "curves": {
            name: [[p.round, round(p.seconds, 3), p.bytes, p.value] for p in points]
            for name, points in one.curves.items()
        },
    }
