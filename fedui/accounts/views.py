from __future__ import annotations

from django.contrib.auth.views import LoginView

from fedui.accounts.forms import SignInForm


class SignIn(LoginView):
    """Account and password. Whoever is signed in already goes on to their federations."""

    authentication_form = SignInForm
    template_name = "accounts/login.html"
    redirect_authenticated_user = True
