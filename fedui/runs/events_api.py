"""Events of runs over REST: by their numbers, and as they come (server-sent events)."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db.models import Case, F, JSONField, QuerySet, Value, When
from django.http import HttpResponseBase, StreamingHttpResponse
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.once import actor_of
from fedui.api.places import take_place
from fedui.api.serializers import Body, Gives
from fedui.federations.models import Act
from fedui.keys.models import ApiKey
from fedui.runs.api import RunPanel, RunView
from fedui.runs.event_stream import event_stream
from fedui.runs.models import Event, Run
from fedui.runs.outs import EventOut
from fedui.runs.serialize import event_payload
from fedui.runs.services import MAX_ROUNDS
from fedui.runs.snapshot import last_event

MAX_EVENTS = 1000
MAX_SEQ = 2**62
MAX_NUMBER = 2**31 - 1


class EventQuery(Body):
    after = serializers.IntegerField(min_value=0, max_value=MAX_SEQ, default=0, help_text="A number.")
    limit = serializers.IntegerField(min_value=1, max_value=MAX_EVENTS, default=MAX_EVENTS)
    client = serializers.UUIDField(required=False, help_text="Only what it did.")
    round = serializers.IntegerField(
        min_value=0, max_value=MAX_ROUNDS, required=False, help_text="Only those of this round."
    )
    brief_before = serializers.IntegerField(
        min_value=0, max_value=MAX_NUMBER, default=0,
        help_text="Of earlier rounds the data, which may name all clients of each, is left out.",
    )  # fmt: skip


class EventsOut(serializers.Serializer[Any]):
    events = EventOut(many=True)
    last_seq = serializers.IntegerField(help_text="Of the newest event of the run.")
    more = serializers.BooleanField()


class RunEvents(RunPanel):
    """The events that follow number `after`, at most `limit`; `more` says that there are others. Numbers have no gaps."""

    noun = "events"
    acts = {"GET": Act.READ}
    asks = EventQuery
    gives = {"GET": Gives(EventsOut, sparse=False)}

    def get(self, request: Request, run_id: int) -> Response:
        asked, run = self.query(), self.run()
        last_seq = last_event(run)
        only = {name: asked[key] for key, name in (("client", "client"), ("round", "round_number")) if key in asked}
        found = Event.objects.filter(run=run, seq__gt=asked["after"], seq__lte=last_seq, **only)
        events = list(_briefly(found, asked["brief_before"])[: asked["limit"]])
        read_to = events[-1].seq if events else last_seq
        body: dict[str, Any] = {
            "events": [event_payload(event) for event in events],
            "last_seq": last_seq,
            "more": read_to < last_seq,
        }
        return Response(body)


def _briefly(found: QuerySet[Event], before: int) -> QuerySet[Event]:
    """Without the data of events of rounds before `before`, which isn't even read."""
    if not before:
        return found
    early = When(round_number__lt=before, then=Value(None, JSONField()))
    return found.defer("data").annotate(told=Case(early, default=F("data"), output_field=JSONField()))


class StreamQuery(Body):
    after = serializers.IntegerField(
        min_value=0, max_value=MAX_SEQ, default=0, help_text="A number; a Last-Event-ID header goes before it."
    )


class RunEventStream(RunView):
    """The events that follow `Last-Event-ID`, or number `after`, and then each as it comes, until the run has ended.

    Server-sent events: `id` is the number, `event` is `run`, `data` is one event as JSON. Who loses the connection comes back with
    `Last-Event-ID`, as browsers do, and misses nothing. The last one is `event: end`: come back no more. One caller may have so
    many open at a time (`FEDUI_API_STREAMS`).
    """

    noun = "events"
    verbs = {"GET": "stream"}
    acts = {"GET": Act.READ}
    asks = StreamQuery
    gives = {"GET": Gives(media_type="text/event-stream", description="Events, as they come.")}

    def get(self, request: Request, run_id: int) -> HttpResponseBase:
        after = self._after(request)
        run = self.run()
        stream = event_stream(run.pk, after, partial(self._may_still_read, run), take_place(actor_of(request)))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingHttpResponse(stream, content_type="text/event-stream", headers=headers)

    def _may_still_read(self, run: Run) -> bool:
        """Asked of the database again and again: role, account, session and key may end while the stream is open."""
        if not self.memberships().filter(federation=run.federation_id, user__is_active=True).exists():
            return False
        if self.api_key:
            return ApiKey.objects.usable().filter(pk=self.api_key.pk).exists()
        session = self.request._request.session  # noqa: SLF001  # Django's own request
        return bool(session.exists(session.session_key or ""))

    def _after(self, request: Request) -> int:
        last: int = self.query()["after"]
        said = request.headers.get("Last-Event-ID", "").strip()
        if not said:
            return last
        if not (said.isascii() and said.isdigit() and len(said) < 19):
            raise serializers.ValidationError({"Last-Event-ID": ["The number of an event."]})
        return int(said)
