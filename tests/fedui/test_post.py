"""Which worker serves: one at a time, and another soon after it is lost."""

from __future__ import annotations

import socket
from datetime import timedelta

import pytest
from django.utils import timezone

from fedui.workers import post
from fedui.workers.models import Worker
from fedui.workers.post import Me

pytestmark = pytest.mark.django_db


def a_worker(name: str, bind: str = "127.0.0.1:0") -> Me:
    return Me(bind=bind, address=f"{name}.example.org:50051", host=name)


def lose(worker: Me) -> None:
    Worker.objects.filter(key=worker.key).update(expires_at=timezone.now() - timedelta(seconds=1))


def test_the_first_serves_and_the_next_stands_by_until_it_is_lost() -> None:
    one, two = a_worker("one"), a_worker("two")
    assert post.stand(one).serves
    assert not post.stand(two).serves
    standing = post.stand(one)
    assert (standing.serves, standing.others) == (True, True)
    assert standing.addresses == (one.address, two.address)
    lose(one)
    assert post.stand(two).serves
    assert post.stand(one) == post.Standing(False, (two.address, one.address), True)


def test_a_worker_that_was_late_keeps_its_place_if_nobody_wanted_it() -> None:
    one = a_worker("one")
    post.stand(one)
    lose(one)
    assert post.stand(one).serves


def test_one_that_leaves_makes_room_at_once() -> None:
    one, two = a_worker("one"), a_worker("two")
    post.stand(one)
    post.step_back(one)
    assert post.stand(two).serves
    post.leave(two)
    standing = post.stand(one)
    assert (standing.serves, standing.addresses, standing.others) == (True, (one.address,), False)


def test_workers_behind_one_address_are_one_address_for_agents() -> None:
    one, two = Me("127.0.0.1:0", "fedui.example.org:50051"), Me("127.0.0.1:0", "fedui.example.org:50051")
    post.stand(one)
    post.stand(two)
    assert post.stand(one).addresses == ("fedui.example.org:50051",)


def test_a_worker_that_is_started_again_need_not_wait_for_the_lease_of_the_one_before() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        before, after = a_worker("host", place), a_worker("host", place)
        post.stand(before)
        post.appear(after)
        assert not post.stand(after).serves, "the one before is still there"
    post.appear(after)
    assert post.stand(after).serves
    assert not Worker.objects.filter(key=before.key).exists()
