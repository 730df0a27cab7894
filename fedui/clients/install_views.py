"""What a site fetches before it has an agent. Public: there is nothing in it but code."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from fedui.clients import install
from fedui.clients.agent_wheel import agent_wheel


@require_safe
def shell_script(request: HttpRequest) -> HttpResponse:
    return _text(install.shell_script())


@require_safe
def powershell_script(request: HttpRequest) -> HttpResponse:
    return _text(install.powershell_script())


@require_safe
def wheel(request: HttpRequest, filename: str) -> HttpResponse:
    found = agent_wheel()
    if filename != found.filename:
        raise Http404
    return HttpResponse(found.content, content_type="application/zip")


def _text(script: str) -> HttpResponse:
    return HttpResponse(script, content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})
