from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from fedui.bookmarks.models import SavedView
from fedui.bookmarks.services import change_view, delete_view, save_view
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, member_view, page

_MOST = 500


class NameForm(forms.Form):
    name = forms.CharField(max_length=80)
    shared = forms.BooleanField(required=False)


class SaveForm(NameForm):
    address = forms.CharField(max_length=2500)


@member_view("GET", "HEAD", "POST", act=Act.SEE_CLIENTS)
def views(request: MemberRequest) -> HttpResponse:
    """All that one has saved or that is shared with one; by POST, a new one."""
    if request.method == "POST":
        return _save(request)
    found = SavedView.objects.visible_to(request.membership).select_related("owner", "federation")[:_MOST]
    rows = [(view, view.may_be_changed_by(request.membership)) for view in found]
    return page(request, "bookmarks/list.html", {"rows": rows})


def _save(request: MemberRequest) -> HttpResponse:
    form = SaveForm(request.POST)
    if not form.is_valid():
        messages.error(request, "The view was not saved: it needs a name of at most 80 characters.")
        return redirect("federation:views", request.federation.slug)
    shared = form.cleaned_data["shared"] and request.membership.may(Act.READ)
    try:
        view = save_view(
            request.federation, request.user, form.cleaned_data["name"], form.cleaned_data["address"],
            shared=shared, from_address=address_of(request),
        )  # fmt: skip
    except DomainError as error:
        messages.error(request, f"The view was not saved. {error} {error.hint}")
        return redirect("federation:views", request.federation.slug)
    messages.success(request, f"Saved as “{view.name}”.")
    return redirect(view.address)


@member_view("POST", act=Act.SEE_CLIENTS)
def change(request: MemberRequest, view_id: int) -> HttpResponse:
    view = _changeable(request, view_id)
    form = NameForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Nothing was changed: a view needs a name of at most 80 characters.")
        return redirect("federation:views", request.federation.slug)
    shared = form.cleaned_data["shared"] and request.membership.may(Act.READ)
    try:
        change_view(view, request.user, form.cleaned_data["name"], shared=shared, from_address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, "The view is changed.")
    return redirect("federation:views", request.federation.slug)


@member_view("POST", act=Act.SEE_CLIENTS)
def delete(request: MemberRequest, view_id: int) -> HttpResponse:
    view = _changeable(request, view_id)
    delete_view(view, request.user, from_address=address_of(request))
    messages.success(request, f"“{view.name}” is deleted.")
    return redirect("federation:views", request.federation.slug)


def _changeable(request: MemberRequest, view_id: int) -> SavedView:
    visible = SavedView.objects.visible_to(request.membership).select_related("federation")
    view = get_object_or_404(visible, pk=view_id)
    if not view.may_be_changed_by(request.membership):
        raise Http404
    return view
