"""Members and invitations over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.clients.models import Client
from fedui.errors import ErrorCode
from fedui.federations import invitations
from fedui.federations.models import Act, Invitation, Membership, Role
from fedui.federations.services import add_member, lock_members, remove_member

_CLIENTS_HELP = "Of a site admin: ids of the clients that are theirs. Empty for other roles."


class MemberOut(serializers.Serializer[Membership]):
    id = serializers.IntegerField()
    username = serializers.CharField(source="user.username")
    role = serializers.ChoiceField(choices=Role.choices)
    clients = serializers.SerializerMethodField(help_text=_CLIENTS_HELP)
    active = serializers.BooleanField(source="user.is_active", help_text="False: the account is deactivated.")
    created_at = serializers.DateTimeField()

    def get_clients(self, member: Membership) -> list[str]:
        return _ids(member.clients)


class RoleBody(Body):
    role = serializers.ChoiceField(choices=Role.choices)
    clients = serializers.ListField(
        child=serializers.UUIDField(), required=False, max_length=1000, help_text=_CLIENTS_HELP
    )


class InvitationOut(serializers.Serializer[Invitation]):
    id = serializers.IntegerField()
    role = serializers.ChoiceField(choices=Role.choices)
    clients = serializers.SerializerMethodField(help_text=_CLIENTS_HELP)
    email = serializers.CharField(help_text="Where the link was sent; may be empty.")
    state = serializers.SerializerMethodField()
    created_by = serializers.CharField(source="created_by.username")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()

    def get_clients(self, invitation: Invitation) -> list[str]:
        return _ids(invitation.clients)

    def get_state(self, invitation: Invitation) -> str:
        """open, accepted, revoked or expired"""
        return invitation.state


class NewInvitationOut(InvitationOut):
    link = serializers.CharField(help_text="Makes whoever opens it first a member. Shown this once.")


class NewInvitation(RoleBody):
    email = serializers.EmailField(required=False, default="", allow_blank=True, help_text="Where to send the link.")
    days = serializers.IntegerField(min_value=1, max_value=30, default=7, help_text="Until it expires.")


class MemberView(ApiView):
    noun = "members"

    def members(self) -> QuerySet[Membership]:
        found = Membership.objects.filter(federation=self.federation)
        return found.select_related("user", "federation").prefetch_related("clients")

    def chosen_clients(self, wanted: dict[str, Any]) -> list[Client]:
        """Raises `ValidationError` where one isn't of this federation."""
        ids = set(wanted.get("clients", []))
        found = list(Client.objects.filter(federation=self.federation, pk__in=ids))
        if len(found) != len(ids):
            raise serializers.ValidationError({"clients": ["There is no such client here."]})
        return found


class MemberList(MemberView, ListView):
    """Who is a member, and with which role."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(MemberOut, many=True)}
    queryset = Membership.objects.none()
    filterset_fields = ("role",)
    ordering = "id"

    def rows(self) -> QuerySet[Membership]:
        return self.members()


class MemberDetail(MemberView):
    """One member."""

    acts = {"GET": Act.READ, "PATCH": Act.MANAGE_MEMBERS, "DELETE": Act.MANAGE_MEMBERS}
    takes = {"PATCH": RoleBody}
    gives = {"GET": Gives(MemberOut), "PATCH": Gives(MemberOut)}
    refusals = {"PATCH": (ErrorCode.LAST_OWNER,), "DELETE": (ErrorCode.LAST_OWNER,)}

    def get(self, request: Request, slug: str, member_id: int) -> Response:
        return Response(MemberOut(get_object_or_404(self.members(), pk=member_id)).data)

    def patch(self, request: Request, slug: str, member_id: int) -> Response:
        """Give the member another role. The last owner keeps theirs."""
        wanted = self.body()
        member = self._locked(member_id)
        changed = add_member(
            self.federation, member.user, Role(wanted["role"]), self.actor,
            clients=self.chosen_clients(wanted), address=self.address,
        )  # fmt: skip
        return Response(MemberOut(changed).data)

    def delete(self, request: Request, slug: str, member_id: int) -> Response:
        """They see nothing of the federation any more; what they made stays. The last owner can't be removed."""
        remove_member(self._locked(member_id), self.actor, address=self.address)
        return Response(status=204)

    def _locked(self, member_id: int) -> Membership:
        lock_members(self.federation)
        member = get_object_or_404(self.members().select_for_update(of=("self",)), pk=member_id)
        self.must_match(MemberOut(member).data)
        return member


class InvitationView(MemberView):
    noun = "invitations"

    def invitations(self) -> QuerySet[Invitation]:
        found = Invitation.objects.filter(federation=self.federation).select_related("created_by", "federation")
        return found.prefetch_related("clients")


class InvitationList(InvitationView, ListView):
    """Invitations, the newest first."""

    acts = {"GET": Act.MANAGE_MEMBERS, "POST": Act.MANAGE_MEMBERS}
    takes = {"POST": NewInvitation}
    gives = {"GET": Gives(InvitationOut, many=True), "POST": Gives(NewInvitationOut, 201)}
    queryset = Invitation.objects.none()
    filterset_fields = ("role",)

    def rows(self) -> QuerySet[Invitation]:
        return self.invitations()

    def post(self, request: Request, slug: str) -> Response:
        """Make a link that makes one person a member. It is in this answer and nowhere else."""
        wanted = self.body()
        made, link = invitations.invite(
            self.federation, self.actor, Role(wanted["role"]), clients=self.chosen_clients(wanted),
            email=wanted["email"], lifetime=timedelta(days=wanted["days"]), address=self.address,
        )  # fmt: skip
        return Response(InvitationOut(made).data | {"link": link}, 201)


class InvitationDetail(InvitationView):
    """One invitation."""

    acts = {"GET": Act.MANAGE_MEMBERS}
    gives = {"GET": Gives(InvitationOut)}

    def get(self, request: Request, slug: str, invitation_id: int) -> Response:
        return Response(InvitationOut(get_object_or_404(self.invitations(), pk=invitation_id)).data)


class RevokeInvitation(InvitationView):
    """Take an invitation back: its link leads nowhere."""

    verbs = {"POST": "revoke"}
    acts = {"POST": Act.MANAGE_MEMBERS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(InvitationOut)}

    def post(self, request: Request, slug: str, invitation_id: int) -> Response:
        self.body()
        invitation = get_object_or_404(self.invitations(), pk=invitation_id)
        self.must_match(InvitationOut(invitation).data)
        invitations.revoke(invitation, self.actor, address=self.address)
        invitation.refresh_from_db()
        return Response(InvitationOut(invitation).data)


def _ids(clients: Any) -> list[str]:
    return sorted(str(client.pk) for client in clients.all())
