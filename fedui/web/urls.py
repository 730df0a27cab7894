"""Addresses of the pages."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.generic import RedirectView

from fedui.accounts import installation_views as installation
from fedui.accounts import views as accounts
from fedui.alerts import rule_views as rules
from fedui.alerts import views as alerts
from fedui.alerts import webhook_views as webhooks
from fedui.analytics import views as analytics
from fedui.audit import views as audit
from fedui.bookmarks import views as bookmarks
from fedui.catalog import views as catalog
from fedui.clients import install_views as install
from fedui.clients import operator_views as operators
from fedui.clients import token_views as tokens
from fedui.clients import views as clients
from fedui.federations import member_views as members
from fedui.federations import views as federations
from fedui.keys import views as keys
from fedui.registry import views as registry
from fedui.reports import views as reports
from fedui.runs import compare_views
from fedui.runs import readiness_views as readiness
from fedui.runs import rules_views as run_rules
from fedui.runs import views as runs
from fedui.strategies import views as strategies
from fedui.web import search_views as search

federation_urlpatterns = [
    path("", federations.overview, name="overview"),
    path("runs/", runs.runs, name="runs"),
    path("runs/new/", runs.new, name="run-new"),
    path("runs/compare/", compare_views.comparison, name="runs-compare"),
    path("runs/<int:run_id>/", runs.run, name="run"),
    path("runs/<int:run_id>/state/", runs.state, name="run-state"),
    path("runs/<int:run_id>/do/<slug:kind>/", runs.command, name="run-command"),
    path("clients/", clients.clients, name="clients"),
    path("clients/<uuid:client_id>/", clients.client, name="client"),
    path("clients/<uuid:client_id>/revoke/", clients.revoke, name="client-revoke"),
    path("clients/<uuid:client_id>/suspend/", operators.suspend, name="client-suspend"),
    path("clients/<uuid:client_id>/reinstate/", operators.reinstate, name="client-reinstate"),
    path("clients/readiness/", readiness.board, name="readiness"),
    path("clients/waiting/", operators.waiting, name="waiting"),
    path("clients/waiting/<uuid:admission_id>/admit/", operators.admit, name="admit"),
    path("clients/waiting/<uuid:admission_id>/refuse/", operators.refuse, name="refuse"),
    path("strategies/", strategies.strategies, name="strategies"),
    path("strategies/new/", strategies.new, name="strategy-new"),
    path("strategies/<slug:name>/", strategies.strategy, name="strategy"),
    path("apps/", catalog.apps, name="apps"),
    path("runs/<int:run_id>/report/", reports.report, name="run-report"),
    path("runs/<int:run_id>/shares/", reports.shares, name="run-shares"),
    path("runs/<int:run_id>/shares/new/", reports.new, name="share-new"),
    path("runs/<int:run_id>/shares/<int:share_id>/revoke/", reports.revoke, name="share-revoke"),
    path("runs/<int:run_id>/promote/", registry.promotion, name="run-promote"),
    path("models/", registry.models, name="models"),
    path("models/<slug:name>/", registry.model, name="model"),
    path("models/<slug:name>/describe/", registry.describe, name="model-describe"),
    path("models/<slug:name>/<int:number>/", registry.version, name="model-version"),
    path("models/<slug:name>/<int:number>/change/", registry.change, name="model-version-change"),
    path("models/<slug:name>/<int:number>/stage/", registry.stage, name="model-version-stage"),
    path("models/<slug:name>/<int:number>/check/", registry.check, name="model-version-check"),
    path("models/<slug:name>/<int:number>/manifest/", registry.manifest, name="model-version-manifest"),
    path("models/<slug:name>/<int:number>/file/", registry.file, name="model-version-file"),
    path("queries/", analytics.queries, name="queries"),
    path("queries/new/", analytics.new, name="query-new"),
    path("queries/<int:query_id>/", analytics.query, name="query"),
    path("queries/<int:query_id>/bins/", analytics.bins, name="query-bins"),
    path("queries/<int:query_id>/cancel/", analytics.cancel, name="query-cancel"),
    path("tokens/", tokens.tokens, name="tokens"),
    path("tokens/new/", tokens.new, name="token-new"),
    path("tokens/<int:token_id>/revoke/", tokens.revoke, name="token-revoke"),
    path("alerts/", alerts.alerts, name="alerts"),
    path("alerts/count/", alerts.count, name="alert-count"),
    path("alerts/acknowledge/", alerts.acknowledge_all, name="alerts-acknowledge"),
    path("alerts/<int:alert_id>/acknowledge/", alerts.acknowledge_one, name="alert-acknowledge"),
    path("alerts/<int:alert_id>/mute/", alerts.mute_one, name="alert-mute"),
    path("audit/", audit.audit, name="audit"),
    path("audit/<int:number>/", audit.entry, name="audit-entry"),
    path("audit/verify/", audit.verify, name="audit-verify"),
    path("audit/export/", audit.export, name="audit-export"),
    path("search/", search.search, name="search"),
    path("views/", bookmarks.views, name="views"),
    path("views/<int:view_id>/change/", bookmarks.change, name="view-change"),
    path("views/<int:view_id>/delete/", bookmarks.delete, name="view-delete"),
    path("settings/", federations.settings, name="settings"),
    path("settings/rules/new/", rules.new, name="rule-new"),
    path("settings/rules/preview/", rules.preview, name="rule-preview"),
    path("settings/rules/<int:rule_id>/", rules.change, name="rule"),
    path("settings/rules/<int:rule_id>/switch/", rules.switch, name="rule-switch"),
    path("settings/rules/<int:rule_id>/mute/", rules.mute, name="rule-mute"),
    path("settings/rules/<int:rule_id>/remove/", rules.remove, name="rule-remove"),
    path("settings/webhooks/new/", webhooks.new, name="webhook-new"),
    path("settings/webhooks/<uuid:webhook_id>/", webhooks.webhook, name="webhook"),
    path("settings/webhooks/<uuid:webhook_id>/test/", webhooks.test, name="webhook-test"),
    path("settings/webhooks/<uuid:webhook_id>/rotate/", webhooks.rotate, name="webhook-rotate"),
    path("settings/webhooks/<uuid:webhook_id>/remove/", webhooks.remove, name="webhook-remove"),
    path(
        "settings/webhooks/<uuid:webhook_id>/deliveries/<uuid:delivery_id>/again/",
        webhooks.redeliver,
        name="delivery-again",
    ),
    path("settings/keys/", keys.keys, name="keys"),
    path("settings/keys/new/", keys.new, name="key-new"),
    path("settings/keys/<int:key_id>/revoke/", keys.revoke, name="key-revoke"),
    path("settings/runs/", run_rules.save, name="run-rules"),
    path("settings/retention/", run_rules.dry_run, name="retention"),
    path("settings/general/", members.general, name="settings-general"),
    path("settings/members/<int:member_id>/", members.change, name="member-change"),
    path("settings/members/<int:member_id>/remove/", members.remove, name="member-remove"),
    path("settings/invitations/new/", members.invite, name="invitation-new"),
    path("settings/invitations/<int:invitation_id>/revoke/", members.revoke, name="invitation-revoke"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", federations.home, name="home"),
    path("login/", accounts.SignIn.as_view(), name="login"),
    path("account/", accounts.account, name="account"),
    path("account/email/", accounts.email, name="account-email"),
    path("account/sessions/end/", accounts.end_session, name="session-end"),
    path("invitations/<str:secret>/", accounts.invitation, name="invitation"),
    path("reports/<str:secret>/", reports.shared, name="shared-report"),
    path("installation/", installation.accounts, name="installation"),
    path("installation/accounts/<int:user_id>/<str:act>/", installation.change, name="installation-change"),
    path("installation/federations/", installation.federations, name="installation-federations"),
    path("installation/federations/<slug:slug>/owner/", installation.appoint, name="installation-appoint"),
    path("installation/audit/", installation.audit, name="installation-audit"),
    path("installation/audit/<int:number>/", installation.entry, name="installation-audit-entry"),
    path("installation/audit/verify/", installation.verify, name="installation-audit-verify"),
    path("installation/audit/export/", installation.export, name="installation-audit-export"),
    # What is allauth's, less what we do otherwise: addresses, sessions and connections stand on the account's page.
    re_path("^accounts/(?:email|sessions|3rdparty|2fa|signup)/$", RedirectView.as_view(pattern_name="account")),
    path("accounts/", include("allauth.urls")),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("install.sh", install.shell_script, name="install-sh"),
    path("install.ps1", install.powershell_script, name="install-ps1"),
    path("install/<str:filename>", install.wheel, name="agent-wheel"),
    path("federations/new/", federations.new, name="federation-new"),
    path("f/<slug:slug>/", include((federation_urlpatterns, "federation"))),
]
