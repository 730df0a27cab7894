"""Which of the aggregator workers serves. It holds the post by a lease in the database, and the database's clock counts.

Agents are connected to one worker, so whoever drives runs must be that one. The post only says where to meet: what keeps two workers
from writing to the same run is the run's own lease.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from fedui.workers.models import Worker
from protos import limits

LEASE = timedelta(seconds=10)
FORGET_AFTER = timedelta(hours=1)
"""A worker that is away so long is no address for agents any more."""


@dataclass(frozen=True, slots=True)
class Me:
    """This process. `key` is its own, as neither hosts nor process numbers are where machines are alike."""

    bind: str
    address: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def owner(self) -> str:
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True, slots=True)
class Standing:
    serves: bool
    addresses: Sequence[str]
    others: bool
    """Whether another worker could serve."""


def appear(me: Me) -> None:
    """Who held the post at this very place, where nobody listens now, is gone: no need to wait for the end of its lease."""
    if _is_free(me.bind):
        Worker.objects.filter(host=me.host, bind=me.bind).exclude(key=me.key).delete()


@transaction.atomic
def stand(me: Me) -> Standing:
    """Say that this worker is there, and take the post if nobody holds it."""
    Worker.objects.filter(expires_at__lt=Now() - FORGET_AFTER).delete()
    place = {"host": me.host, "pid": me.pid, "bind": me.bind, "address": me.address}
    mine, _ = Worker.objects.update_or_create(key=me.key, defaults={**place, "expires_at": Now() + LEASE})
    serves = mine.serving or _take(me)
    others = Worker.objects.filter(expires_at__gt=Now()).exclude(key=me.key)
    return Standing(serves, addresses(), others.exists())


def addresses() -> tuple[str, ...]:
    """Of all workers, first of the one that serves."""
    found = Worker.objects.order_by("-serving", "started_at").values_list("address", flat=True)
    return tuple(dict.fromkeys(found))[: limits.MAX_SERVERS]


def step_back(me: Me) -> None:
    """Leave the post to another."""
    Worker.objects.filter(key=me.key).update(serving=False)


def leave(me: Me) -> None:
    Worker.objects.filter(key=me.key).delete()


def _take(me: Me) -> bool:
    Worker.objects.filter(serving=True, expires_at__lte=Now()).update(serving=False)
    if Worker.objects.filter(serving=True).exists():
        return False
    try:
        with transaction.atomic():
            Worker.objects.filter(key=me.key).update(serving=True)
    except IntegrityError:  # another was quicker
        return False
    return True


def _is_free(bind: str) -> bool:
    """Whether this address can be bound. Where any port will do, nobody has had this very one."""
    host, _, port = bind.rpartition(":")
    host = host.strip("[]")
    if port == "0":
        return False
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, int(port)))
    except OSError:
        return False
    return True
