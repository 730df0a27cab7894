"""WebSockets of the pages. From server to browser only; what a browser sends is ignored."""

from __future__ import annotations

from typing import Any

from channels.auth import get_user
from channels.consumer import get_handler_name
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.auth.models import AnonymousUser
from django.db.models import Max

from fedui.federations.models import Act, Federation, Membership
from fedui.log_context import begin_socket
from fedui.runs import live
from fedui.runs.delay import delay_watch
from fedui.runs.models import Event, Run

NOT_SIGNED_IN = 4401
NOT_FOUND = 4404


class _GroupConsumer(AsyncJsonWebsocketConsumer):
    """Lets a signed-in member join one group, and forwards what is sent to it."""

    group: str | None = None

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Channels has a thread close old connections before each message: of a frame for a hundred browsers that was half the work. Here
        only `database_sync_to_async` asks the database, which closes them itself.
        """
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        begin_socket(self.scope)
        await self.accept()
        user = self.scope["user"]
        if not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
        elif (group := await self.find_group()) is None:
            await self.close(NOT_FOUND)
        else:
            self.group = group
            for name in (group, live.user_group(user.pk)):
                await self.channel_layer.group_add(name, self.channel_name)
            await self.send_json(await self.hello())
            delay_watch().add(self)

    async def disconnect(self, code: int) -> None:
        if self.group:
            delay_watch().remove(self)
            for name in (self.group, live.user_group(self.scope["user"].pk)):
                await live.leave(name, self.channel_name)

    async def access_changed(self, message: dict[str, Any]) -> None:
        """The reader has lost a role, a session or the account: whether this page is still theirs is asked anew."""
        session = self.scope["session"]
        there = await database_sync_to_async(session.exists)(session.session_key)
        user = self.scope["user"] = await get_user(self.scope) if there else AnonymousUser()
        if not user.is_authenticated:
            await self.close(NOT_SIGNED_IN)
        elif await self.find_group() is None:
            await self.close(NOT_FOUND)

    async def tell_delayed(self, delayed: bool) -> None:
        await self.send_json({"type": "delayed", "delayed": delayed})

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **_: Any) -> None:
        """Browsers have nothing to say here."""

    async def find_group(self) -> str | None:
        raise NotImplementedError

    async def hello(self) -> dict[str, Any]:
        return {"type": "hello"}


class RunConsumer(_GroupConsumer):
    """The events of one run, as they are stored. `hello.last_seq` tells the page what it may have missed."""

    run_id: int

    async def find_group(self) -> str | None:
        run_id = self.scope["url_route"]["kwargs"]["run_id"]
        if not await database_sync_to_async(self._is_visible)(run_id):
            return None
        self.run_id = run_id
        return live.run_group(run_id)

    def _is_visible(self, run_id: int) -> bool:
        visible = Federation.objects.visible_to(self.scope["user"])
        return Run.objects.filter(pk=run_id, federation__in=visible).exists()

    async def hello(self) -> dict[str, Any]:
        # After joining the group: an event stored before this read is counted, one stored later is forwarded.
        last = await database_sync_to_async(Event.objects.filter(run_id=self.run_id).aggregate)(last=Max("seq"))
        return {"type": "hello", "last_seq": last["last"] or 0}

    async def run_events(self, message: dict[str, Any]) -> None:
        await self.send(text_data=message["frame"])

    async def run_command(self, message: dict[str, Any]) -> None:
        await self.send_json({"type": "command", "command": message["command"]})


class FederationConsumer(_GroupConsumer):
    """Tells pages that a list has changed; they fetch it anew."""

    clients_only = False

    async def find_group(self) -> str | None:
        slug = self.scope["url_route"]["kwargs"]["slug"]
        members = Membership.objects.filter(federation__slug=slug)
        membership = await database_sync_to_async(lambda: members.effective(self.scope["user"]).first())()
        if membership is None or not membership.may(Act.SEE_CLIENTS):
            return None
        self.clients_only = membership.sees_own_clients_only
        return live.federation_group(str(membership.federation_id))

    async def federation_changed(self, message: dict[str, Any]) -> None:
        if message["what"] in ("clients", "alerts") or not self.clients_only:
            await self.send_json({"type": "changed", "what": message["what"]})
