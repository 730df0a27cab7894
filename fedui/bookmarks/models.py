from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from fedui.federations.models import Act, Federation, Membership


class SavedViewQuerySet(models.QuerySet["SavedView"]):
    def visible_to(self, membership: Membership) -> SavedViewQuerySet:
        """One's own; and those that are shared in the federation, for members who see all of it."""
        own = Q(owner=membership.user_id)
        seen = own | Q(shared=True) if membership.may(Act.READ) else own
        return self.filter(seen, federation=membership.federation_id)


class SavedView(models.Model):
    """A name for an address of a page with all that it shows: filters, order, metric, axis, selection."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="saved_views")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=80)
    page = models.CharField(max_length=40, help_text="Name of the page's address.")
    path = models.CharField(max_length=200, help_text="Within the federation.")
    query = models.CharField(max_length=2000, blank=True)
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = SavedViewQuerySet.as_manager()

    class Meta:
        ordering = ["name", "pk"]
        constraints = [models.UniqueConstraint(fields=["federation", "owner", "name"], name="view_name_unique")]

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """Within the site; the page that it names decides anew who may see it."""
        return f"/f/{self.federation.slug}/{self.path}{f'?{self.query}' if self.query else ''}"

    def may_be_changed_by(self, membership: Membership) -> bool:
        return self.owner_id == membership.user_id or (self.shared and membership.may(Act.MANAGE_SETTINGS))
