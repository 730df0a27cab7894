from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.cache import never_cache
from django_htmx.http import trigger_client_event

from fedui.clients import install
from fedui.clients.forms import TokenForm
from fedui.clients.services import create_token, revoke_token
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm

PAGE_SIZE = 50


@member_view(act=Act.MANAGE_TOKENS)
def tokens(request: MemberRequest) -> HttpResponse:
    found = request.federation.tokens.select_related("created_by")
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"shown": shown, "form": TokenForm()}
    return fragment_or_page(request, "tokens/list.html", "tokens/_list.html", context)


@never_cache
@member_view("POST", act=Act.MANAGE_TOKENS)
def new(request: MemberRequest) -> HttpResponse:
    """Make a token and show it, this once: the answer to this request is the only place where its secret appears."""
    form = TokenForm(request.POST)
    if not form.is_valid():
        return page(request, "tokens/_form.html", {"form": form})
    token, secret = create_token(request.federation, request.user, **form.cleaned_data, address=address_of(request))
    lines, warning = install.lines(secret), install.warning()
    context = {"token": token, "secret": secret, "lines": lines, "warning": warning, "blank": TokenForm()}
    response = page(request, "tokens/_reveal.html", context)
    return trigger_client_event(response, "tokens-changed")


@member_view("POST", act=Act.MANAGE_TOKENS)
def revoke(request: MemberRequest, token_id: int) -> HttpResponse:
    token = get_object_or_404(request.federation.tokens, pk=token_id)
    confirm = ConfirmForm(token.key_id, request.POST)
    if confirm.is_valid():
        revoke_token(token, request.user, address=address_of(request))
        messages.success(request, f"Token {token.key_id} is revoked.")
    else:
        messages.error(request, f"The token was not revoked. {confirm.errors['confirm'][0]}")
    return redirect("federation:tokens", request.federation.slug)
