"""Every page there is: by area, with who looks at it. What the names in addresses stand for says `tests.support.gallery`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Looked:
    """A page as somebody sees it. Addresses are of the federation's, or from the site's root where they begin with a slash."""

    name: str
    path: str
    who: str = "owner"
    status: int = 200
    is_ours: bool = True
    """Or drawn by somebody else's program: Swagger UI, Redoc."""


AREAS: dict[str, tuple[Looked, ...]] = {
    "runs": (
        Looked("overview", ""),
        Looked("runs", "runs/"),
        Looked("runs-none", "runs/?q=nothing-like-this"),
        Looked("run-new", "runs/new/"),
        Looked("run", "runs/{run}/"),
        Looked("run-past", "runs/{run}/?round=2"),
        Looked("run-failed", "runs/{failed}/"),
        Looked("compare", "runs/compare/?runs={run},{other}"),
        Looked("compare-refused", "runs/compare/?runs={run}", status=422),
        Looked("run-report", "runs/{run}/report/"),
        Looked("run-shares", "runs/{run}/shares/"),
        Looked("run-promote", "runs/{run}/promote/"),
        Looked("shared-report", "/reports/{report}/", who=""),
    ),
    "clients": (
        Looked("clients", "clients/"),
        Looked("clients-none", "clients/?q=nobody"),
        Looked("client", "clients/{client}/"),
        Looked("client-suspended", "clients/{suspended}/"),
        Looked("client-revoked", "clients/{revoked}/"),
        Looked("client-late", "clients/{late}/"),
        Looked("client-silent", "clients/{silent}/"),
        Looked("readiness", "clients/readiness/"),
        Looked("tokens", "tokens/"),
        Looked("token-new", "tokens/?dialog=create"),
        Looked("clients-of-a-site", "clients/", who="site_admin"),
        Looked("overview-of-a-site", "", who="site_admin"),
    ),
    "work": (
        Looked("strategies", "strategies/"),
        Looked("strategy-new", "strategies/new/"),
        Looked("strategy", "strategies/plain/"),
        Looked("apps", "apps/"),
        Looked("models", "models/"),
        Looked("models-of-runs", "models/?view=runs"),
        Looked("model", "models/digits-mlp/"),
        Looked("model-version", "models/digits-mlp/1/"),
        Looked("queries", "queries/"),
        Looked("query-new", "queries/new/"),
        Looked("query", "queries/{query}/"),
        Looked("query-failed", "queries/{refused}/"),
        Looked("search", "search/?q=hosp"),
        Looked("search-none", "search/?q=zzz"),
        Looked("views", "views/"),
    ),
    "rules": (
        Looked("alerts", "alerts/"),
        Looked("alerts-resolved", "alerts/?status=resolved"),
        Looked("settings", "settings/"),
        Looked("settings-for-a-researcher", "settings/", who="researcher"),
        Looked("rule-new", "settings/rules/new/?kind=metric_threshold"),
        Looked("rule", "settings/rules/{rule}/"),
        Looked("webhook", "settings/webhooks/{webhook}/"),
        Looked("member", "settings/members/{member}/"),
        Looked("keys", "settings/keys/"),
        Looked("key-new", "settings/keys/?dialog=create"),
        Looked("audit", "audit/"),
        Looked("installation", "/installation/", who="root"),
        Looked("installation-federations", "/installation/federations/", who="root"),
        Looked("installation-audit", "/installation/audit/", who="root"),
    ),
    "api": (
        Looked("swagger", "/api/v1/docs", is_ours=False),
        Looked("redoc", "/api/v1/redoc", is_ours=False),
        Looked("admin", "/admin/", who="root", is_ours=False),
    ),
    "accounts": (
        Looked("login", "/login/", who=""),
        Looked("password-reset", "/accounts/password/reset/", who=""),
        Looked("password-reset-done", "/accounts/password/reset/done/", who=""),
        Looked("password-reset-over", "/accounts/password/reset/key/done/", who=""),
        Looked("password-reset-key", "/accounts/password/reset/key/1-k/", who=""),
        Looked("inactive", "/accounts/inactive/", who=""),
        Looked("login-cancelled", "/accounts/3rdparty/login/cancelled/", who=""),
        Looked("invitation", "/invitations/{secret}/", who=""),
        Looked("invitation-refused", "/invitations/nothing/", who="", status=404),
        Looked("account", "/account/"),
        Looked("password-change", "/accounts/password/change/"),
        Looked("reauthenticate", "/accounts/reauthenticate/"),
        Looked("logout", "/accounts/logout/"),
        Looked("second-factor", "/accounts/2fa/totp/activate/"),
        Looked("second-factor-off", "/accounts/2fa/totp/deactivate/", who="careful"),
        Looked("second-factor-asked", "/accounts/2fa/reauthenticate/", who="careful"),
        Looked("recovery-codes", "/accounts/2fa/recovery-codes/", who="careful"),
        Looked("recovery-codes-new", "/accounts/2fa/recovery-codes/generate/", who="careful"),
        Looked("account-with-a-factor", "/account/", who="careful"),
        Looked("federation-new", "/federations/new/"),
        Looked("no-federation", "/federations/new/", who="stranger"),
        Looked("not-here", "/nowhere/", status=404),
        Looked("not-allowed", "tokens/", who="researcher", status=403),
        Looked("server-error", "/broken/", status=500),
        Looked("not-now", "/away/", status=503),
    ),
    "beginnings": tuple(
        Looked(f"{name or 'overview'}-empty".replace("/", "-"), f"/f/nothing/{path}", who="newcomer")
        for name, path in (
            ("overview", ""), ("runs", "runs/"), ("run-new", "runs/new/"), ("clients", "clients/"), ("readiness", "clients/readiness/"),
            ("strategies", "strategies/"), ("apps", "apps/"), ("models", "models/"), ("queries", "queries/"), ("query-new", "queries/new/"),
            ("tokens", "tokens/"), ("alerts", "alerts/"), ("audit", "audit/"), ("settings", "settings/"), ("keys", "settings/keys/"),
            ("views", "views/"),
        )
    ),
}  # fmt: skip

NOT_LOOKED_AT: dict[str, str] = {
    "": "leads to a federation",
    "f/<slug>/runs/<run_id>/state/": "a fragment of the run's page",
    "f/<slug>/clients/waiting/": "a fragment of the clients' page",
    "f/<slug>/queries/<query_id>/bins/": "a fragment of the query's page",
    "f/<slug>/alerts/count/": "a fragment of the navigation",
    "f/<slug>/audit/<number>/": "a dialog of the audit log",
    "installation/audit/<number>/": "a dialog of the audit log",
    "f/<slug>/settings/retention/": "a fragment of the settings",
    "f/<slug>/models/<name>/<number>/manifest/": "a file",
    "f/<slug>/models/<name>/<number>/file/": "a file",
    "metrics": "for Prometheus",
    "install.sh": "a file",
    "install.ps1": "a file",
    "install/<filename>": "a file",
    "accounts/2fa/recovery-codes/download/": "a file",
    "accounts/login/": "leads to login/",
    "accounts/signup/": "leads to account/",
    "accounts/email/": "leads to account/",
    "accounts/sessions/": "leads to account/",
    "accounts/3rdparty/": "leads to account/",
    "accounts/2fa/": "leads to account/",
    "accounts/social/connections/": "leads to account/",
    "accounts/social/login/cancelled/": "leads to accounts/3rdparty/login/cancelled/",
    "accounts/social/login/error/": "leads to accounts/3rdparty/login/error/",
    "accounts/social/signup/": "leads to accounts/3rdparty/signup/",
    "accounts/confirm-email/": "no address is confirmed",
    "accounts/confirm-email/<key>/": "no address is confirmed",
    "accounts/password/set/": "leads to accounts/password/change/ whoever has a password",
    "accounts/reauthenticate/code/": "nobody signs in by a code of a message",
    "accounts/reauthenticate/code/confirm/": "nobody signs in by a code of a message",
    "accounts/login/code/confirm/": "nobody signs in by a code of a message",
    "accounts/2fa/authenticate/": "the middle of a sign-in: test_people",
    "accounts/3rdparty/login/error/": "the middle of a sign-in by a provider: tests/web/test_sign_in",
    "accounts/3rdparty/signup/": "the middle of a sign-in by a provider: tests/web/test_sign_in",
    "accounts/oidc/<provider_id>/login/": "the middle of a sign-in by a provider: tests/web/test_sign_in",
    "accounts/oidc/<provider_id>/login/callback/": "the middle of a sign-in by a provider: tests/web/test_sign_in",
}
"""Addresses that answer GET with no page of their own, and why."""
