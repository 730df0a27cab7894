"""The addresses of the pages, and two that show what a server's faults look like."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

from fedui.urls import urlpatterns as of_fedui


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("Broken on purpose.")


def away(request: HttpRequest) -> HttpResponse:
    return render(request, "503.html", status=503)


urlpatterns = [*of_fedui, path("broken/", broken), path("away/", away)]
