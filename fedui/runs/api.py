"""Runs over REST: the snapshot a page begins with, the events it missed, the models a run has made."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from django.utils.text import slugify
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.api.files import file_response
from fedui.clients.models import Client
from fedui.federations.models import Act, Federation, Membership
from fedui.runs.commands import Order
from fedui.runs.models import CommandKind, Event, ModelVersion, Round, RoundStatus, Run
from fedui.runs.orders import BadOrder, obey
from fedui.runs.retention import ModelGone
from fedui.runs.serialize import command_payload, event_payload, run_payload
from fedui.runs.similarity import similarity_payload
from fedui.runs.snapshot import last_event, snapshot_of
from fedui.runs.store import model_files
from fedui.web.access import address_of

MAX_EVENTS = 1000
MAX_UPDATES = 10_000


class RunView(APIView):
    """Something of one run. For those who are no members of its federation the run doesn't exist."""

    def run_of(self, request: Request, run_id: int) -> Run:
        visible = Run.objects.filter(federation__in=Federation.objects.visible_to(request.user))
        related = visible.select_related("federation", "app", "strategy_version__strategy", "origin__run")
        return get_object_or_404(related, pk=run_id)


class RunSnapshot(RunView):
    def get(self, request: Request, run_id: int) -> Response:
        return Response(snapshot_of(self.run_of(request, run_id)))


class EventQuery(serializers.Serializer[dict[str, Any]]):
    after = serializers.IntegerField(min_value=0, max_value=2**62, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_EVENTS, default=MAX_EVENTS)
    client = serializers.UUIDField(required=False, default=None)
    round = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False, default=None)
    brief_before = serializers.IntegerField(min_value=0, max_value=2**31 - 1, default=0)


class RunEvents(RunView):
    """The events that follow number `after`, at most `limit`; `more` says that there are others. `client` and `round`: only theirs.

    Of rounds before `brief_before` the data is left out: it names all clients of each, and is not needed for a log.
    """

    def get(self, request: Request, run_id: int) -> Response:
        query = EventQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        after, limit = query.validated_data["after"], query.validated_data["limit"]
        run = self.run_of(request, run_id)
        last_seq = last_event(run)
        only = {"client": query.validated_data["client"], "round_number": query.validated_data["round"]}
        wanted = {name: value for name, value in only.items() if value is not None}
        found = Event.objects.filter(run=run, seq__gt=after, seq__lte=last_seq, **wanted)
        events = list(found.brief_before(query.validated_data["brief_before"])[:limit])
        read_to = events[-1].seq if events else last_seq
        body: dict[str, Any] = {
            "events": [event_payload(event) for event in events],
            "last_seq": last_seq,
            "more": read_to < last_seq,
        }
        return Response(body)


class NewCommand(serializers.Serializer[dict[str, Any]]):
    command = serializers.ChoiceField(choices=CommandKind.choices)
    key = serializers.CharField(max_length=64, required=False, default="")


class RunCommands(RunView):
    """What people have done to a run. A POST gives an order: `command`, its parameters, and a `key` that makes it safe to repeat."""

    def get(self, request: Request, run_id: int) -> Response:
        commands = self.run_of(request, run_id).commands.all()
        return Response({"commands": [command_payload(command) for command in commands]})

    def post(self, request: Request, run_id: int) -> Response:
        run = self.run_of(request, run_id)
        user: Any = request.user
        if not Membership.objects.get(federation=run.federation, user=user).may(Act.MANAGE_RUNS):
            raise PermissionDenied("Your role in this federation may not start or stop runs.")
        form = NewCommand(data=request.data)
        form.is_valid(raise_exception=True)
        order = Order(user, form.validated_data["key"], address_of(request._request))  # noqa: SLF001  # Django's own request
        try:
            made = obey(run, order, CommandKind(form.validated_data["command"]), form.initial_data)
        except BadOrder as error:
            raise serializers.ValidationError(dict(error.errors)) from error
        return Response({"run": run_payload(self.run_of(request, made.pk if made else run_id))})


class RoundSimilarity(RunView):
    """How alike the updates of a committed round were: the estimated cosine of each pair of clients."""

    def get(self, request: Request, run_id: int, round_number: int) -> Response:
        committed = Round.objects.filter(run=self.run_of(request, run_id), status=RoundStatus.COMMITTED)
        return Response(similarity_payload(get_object_or_404(committed, number=round_number)))


class ClientUpdates(APIView):
    """The updates of a client that rounds have counted, the newest first: what its owner's `fedagent log --compare` reads."""

    def get(self, request: Request, slug: str, client_id: str) -> Response:
        members = Membership.objects.effective(request.user).that_may(Act.SEE_CLIENTS)
        membership = get_object_or_404(members, federation__slug=slug)
        client = get_object_or_404(Client.objects.visible_to(membership), pk=client_id)
        counted = client.participations.exclude(update_sha256="").order_by("-pk")
        rows = counted.values("round__run_id", "round__number", "round__attempt", "update_sha256", "bytes_up")
        updates = [
            {
                "run": row["round__run_id"],
                "round": row["round__number"],
                "attempt": row["round__attempt"],
                "sha256": row["update_sha256"],
                "bytes": row["bytes_up"],
            }
            for row in rows[: MAX_UPDATES + 1]
        ]
        body: dict[str, Any] = {
            "client": str(client.pk), "updates": updates[:MAX_UPDATES], "more": len(updates) > MAX_UPDATES,
        }  # fmt: skip
        return Response(body)


class RunModel(RunView):
    """The global model after a round, as safetensors. The ETag is the SHA-256 of the file."""

    def get(self, request: Request, run_id: int, round_number: int) -> HttpResponseBase:
        run = self.run_of(request, run_id)
        model = get_object_or_404(ModelVersion, run=run, round_number=round_number)
        etag = quote_etag(model.sha256)
        unchanged: HttpResponseBase | None = get_conditional_response(request._request, etag=etag)  # noqa: SLF001  # Django wants its own request
        return unchanged or self._download(request, run, model, etag)

    def _download(self, request: Request, run: Run, model: ModelVersion, etag: str) -> HttpResponseBase:
        filename = f"{slugify(run.name) or f'run-{run.pk}'}-round-{model.round_number}.safetensors"
        if model.removed_at:
            raise ModelGone(model)
        try:
            file = model_files().open(model.key)
        except FileNotFoundError as error:
            raise Http404(f"{model} is missing from the model store.") from error
        response = file_response(request._request, file, model.size, filename)  # noqa: SLF001  # as above
        response["ETag"] = etag
        response["X-Checksum"] = f"sha256={model.sha256}"
        return response
