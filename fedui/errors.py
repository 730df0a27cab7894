"""The catalogue of domain errors. Pages, the REST API and gRPC translate these, and nothing else, for their users.

DomainError
├── NameTaken               here
├── Forbidden               here
├── IllegalTransition       fedui.transitions
├── NameRefused             fedui.clients.names
├── TokenRefused            fedui.clients.tokens
├── TokenThrottled          fedui.clients.tokens
├── AdmissionRefused        fedui.clients.admission
├── RenewalTooSoon          fedui.clients.renewal
├── RenewalBarred           fedui.clients.renewal
├── RotationRefused         fedui.clients.authorities
├── SigningRequestRefused   fedui.clients.pki
├── BadStrategy             fedui.strategies.faults
├── KeyRefused              fedui.keys.services
├── PreconditionFailed      fedui.api.conditional
├── PreconditionRequired    fedui.api.conditional
├── KeyOfAnotherRequest     fedui.api.once
├── TooManyStreams          fedui.api.places
├── ScopeMissing            fedui.api.access
├── RunRefused              fedui.runs.services
├── ModelGone               fedui.runs.retention
├── TooManyUpdates          fedui.runs.similarity
├── DiffRefused             fedui.runs.model_diff
├── ComparisonRefused       fedui.runs.comparison
├── QueryRefused            fedui.analytics.services
├── RegistryRefused         fedui.registry.services
├── ReleaseRefused          fedui.registry.services
├── ShareRefused            fedui.reports.shares
├── ViewRefused             fedui.bookmarks.services
├── LastOwner               fedui.federations.services
├── LastAdministrator       fedui.accounts.administration
├── AppointmentRefused      fedui.federations.services
├── ClientsRefused          fedui.federations.services
├── InvitationRefused       fedui.federations.invitations
├── BadRule                 fedui.alerts.kinds
├── BadAddress              fedui.alerts.outbound
├── WebhookRefused          fedui.alerts.webhooks
└── RedeliveryRefused       fedui.alerts.webhooks
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """One code an error, the same wherever it is shown."""

    TOKEN_INVALID = "token_invalid"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_SPENT = "token_spent"
    TOKEN_REVOKED = "token_revoked"
    CSR_INVALID = "csr_invalid"
    ADMISSION_REFUSED = "admission_refused"
    RENEWAL_TOO_SOON = "renewal_too_soon"
    NAME_TAKEN = "name_taken"
    ILLEGAL_TRANSITION = "illegal_transition"
    RUN_REFUSED = "run_refused"
    QUERY_REFUSED = "query_refused"
    LAST_OWNER = "last_owner"
    INVITATION_REFUSED = "invitation_refused"
    STRATEGY_INVALID = "strategy_invalid"
    INVALID_REQUEST = "invalid_request"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    SCOPE_MISSING = "scope_missing"
    PRECONDITION_FAILED = "precondition_failed"
    PRECONDITION_REQUIRED = "precondition_required"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    API_KEY_REFUSED = "api_key_refused"
    THROTTLED = "throttled"
    GONE = "gone"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class DomainError(Exception):
    """What went wrong (`str(error)`) and what to do about it (`hint`)."""

    code: ErrorCode = ErrorCode.INTERNAL
    extensions: Mapping[str, Any] = {}
    """More members of the problem document, for programs."""
    retry_after: int | None = None
    """Seconds, after which the same may be tried again."""

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class NameTaken(DomainError):
    """Something else of the kind has the name already."""

    code = ErrorCode.NAME_TAKEN


class Forbidden(DomainError):
    """The role, or the scopes of the key, don't allow it."""

    code = ErrorCode.FORBIDDEN
