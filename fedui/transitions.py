"""State machines of database rows: explicit transitions, decided by one conditional UPDATE.

A subclass of `StatefulModel` has a `status` field and a table `TRANSITIONS` from each state to those that may follow
it; a state with none is terminal. `transition()` writes only if the row is still in a state that allows it: of two
processes exactly one succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from django.db import models

from fedui.errors import DomainError, ErrorCode


class IllegalTransition(DomainError):
    """The row is in a state from which the wanted one can't be reached."""

    code = ErrorCode.ILLEGAL_TRANSITION

    def __init__(self, subject: str, current: str, wanted: str, allowed: list[str]) -> None:
        self.current, self.wanted = current, wanted
        after = f"From here it can become {', '.join(allowed)}." if allowed else "That is final."
        super().__init__(f"{subject} is {current} and can't become {wanted}.", hint=after)


class StatefulModel(models.Model):
    """A model with an explicit state machine on its `status` field."""

    TRANSITIONS: ClassVar[Mapping[str, frozenset[str]]]
    status: Any

    class Meta:
        abstract = True

    @classmethod
    def states_before(cls, wanted: str) -> list[str]:
        return [state for state, following in cls.TRANSITIONS.items() if wanted in following]

    @property
    def is_terminal(self) -> bool:
        return not self.TRANSITIONS[self.status]

    def transition(self, wanted: str, **fields: Any) -> None:
        """Set `status` to `wanted`, and `fields` with it, in one conditional UPDATE. Raises `IllegalTransition`."""
        rows: models.QuerySet[Any] = type(self)._default_manager.all()  # noqa: SLF001  # part of Django's public API
        rows = rows.filter(pk=self.pk, status__in=self.states_before(wanted))
        if not rows.update(status=wanted, **fields):
            self.refresh_from_db()
            raise IllegalTransition(str(self), self.status, wanted, sorted(self.TRANSITIONS[self.status]))
        self.refresh_from_db()
