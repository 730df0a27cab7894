from __future__ import annotations

from allauth.account.decorators import secure_admin_login
from django.contrib import admin
from django.urls import include, path

from fedui.metrics.exposition import metrics

# The admin is entered by the same door as everything else: with lock-out, second factor and single sign-on.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

urlpatterns = [
    path("api/v1/", include("fedui.api.urls")),
    path("admin/", admin.site.urls),
    path("metrics", metrics),
    path("", include("fedui.web.urls")),
]
