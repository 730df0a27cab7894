"""Who may call what. A view names for each of its methods an act of a federation's members, or an `Access`; what names none is closed."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django.http import Http404
from rest_framework.exceptions import MethodNotAllowed, NotAuthenticated
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from fedui.accounts.administration import lacks_second_factor
from fedui.errors import DomainError, ErrorCode, Forbidden
from fedui.federations.models import ALLOWED, Act, Membership
from fedui.keys.models import ApiKey
from fedui.keys.scopes import SCOPE_OF, Scope


class Access(StrEnum):
    """Where it isn't the role in a federation that decides."""

    PUBLIC = "public"
    """Anybody, without a sign-in."""
    SIGNED_IN = "signed_in"
    """Any account; an API key with the scope `read`."""
    ACCOUNT = "account"
    """Any account, by a session: no API key."""
    INSTALLATION = "installation"
    """Installation administrators, by a session; for others there is no such address."""


class ScopeMissing(DomainError):
    """The role would allow it, the API key doesn't."""

    code = ErrorCode.SCOPE_MISSING


class NamedAct(BasePermission):
    """Lets a call through if who calls may do what the view names for its method."""

    def has_permission(self, request: Request, view: Any) -> bool:
        access = view.access_to(request.method)
        if access == Access.PUBLIC:
            return True
        if not request.user.is_authenticated:
            raise NotAuthenticated
        key = view.api_key
        if isinstance(access, Act):
            _check_role(view.membership, access)
            _check_scope(key, SCOPE_OF[access])
        elif access == Access.SIGNED_IN:
            _check_scope(key, Scope.READ)
        elif access == Access.ACCOUNT:
            _refuse_key(key)
        elif access == Access.INSTALLATION:
            _refuse_key(key)
            _check_administrator(request.user)
        elif not _has_handler(view, request.method):
            raise MethodNotAllowed(str(request.method))
        else:
            raise Forbidden("Nobody may do this.", hint="This is a fault of the server's: the view names no act.")
        return True


def _has_handler(view: Any, method: str | None) -> bool:
    return method != "OPTIONS" and hasattr(view, (method or "").lower())


def _check_role(membership: Membership, act: Act) -> None:
    if not membership.may(act):
        may = ", ".join(role.label.lower() for role, acts in ALLOWED.items() if act in acts)
        raise Forbidden(
            f"Your role in this federation ({membership.get_role_display().lower()}) does not allow: {act.label}.",
            hint=f"These may: {may}. An owner can give you another role.",
        )


def _check_scope(key: ApiKey | None, scope: Scope) -> None:
    if key is not None and scope not in key.scopes:
        raise ScopeMissing(
            f"This API key lacks the scope {scope.value}.", hint=f"Make a key with the scope {scope.value}."
        )


def _check_administrator(user: Any) -> None:
    if not user.is_superuser:
        raise Http404
    if lacks_second_factor(user):
        raise Forbidden("This installation asks for a second factor.", hint="Set one up under Your account.")


def _refuse_key(key: ApiKey | None) -> None:
    if key is not None:
        raise ScopeMissing("No API key may do this.", hint="Sign in, and do it as yourself.")
