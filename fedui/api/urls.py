"""Addresses of the REST API, version 1."""

from __future__ import annotations

from django.urls import include, path, re_path

from fedui.alerts import api as alerts
from fedui.alerts import webhooks_api as webhooks
from fedui.analytics.api import CancelQuery, QueryDetail, QueryList
from fedui.api import meta
from fedui.audit import api as audit
from fedui.catalog.api import AppDetail, AppList
from fedui.clients import operators_api as operators
from fedui.clients import presence_api as clients
from fedui.clients import tokens_api as tokens
from fedui.clients.api import AdmissionState, CertificateAuthority, Enrol
from fedui.federations import installation_api as installation
from fedui.federations import members_api as members
from fedui.federations.api import FederationDetail, FederationList
from fedui.keys import api as keys
from fedui.registry import api as registry
from fedui.reports import api as reports
from fedui.runs import api as runs
from fedui.runs import events_api as events
from fedui.runs import models_api as models
from fedui.runs import panels_api as panels
from fedui.runs import rounds_api as rounds
from fedui.runs import rules_api as rules
from fedui.runs.compare_api import RunComparison
from fedui.runs.readiness_api import Readiness
from fedui.strategies import api as strategies

app_name = "api"

_federation = [
    path("members", members.MemberList.as_view(), name="members"),
    path("members/<int:member_id>", members.MemberDetail.as_view(), name="member"),
    path("invitations", members.InvitationList.as_view(), name="invitations"),
    path("invitations/<int:invitation_id>", members.InvitationDetail.as_view(), name="invitation"),
    path("invitations/<int:invitation_id>/revoke", members.RevokeInvitation.as_view(), name="invitation-revoke"),
    path("keys", keys.KeyList.as_view(), name="keys"),
    path("keys/<int:key_id>", keys.KeyDetail.as_view(), name="key"),
    path("keys/<int:key_id>/revoke", keys.RevokeKey.as_view(), name="key-revoke"),
    path("admissions", operators.AdmissionList.as_view(), name="admissions"),
    path("admissions/<uuid:admission_id>", operators.AdmissionDetail.as_view(), name="admission-detail"),
    path("admissions/<uuid:admission_id>/admit", operators.Admit.as_view(), name="admit"),
    path("admissions/<uuid:admission_id>/refuse", operators.Refuse.as_view(), name="refuse"),
    path("clients", clients.ClientList.as_view(), name="clients"),
    path("clients/<uuid:client_id>", clients.ClientDetail.as_view(), name="client"),
    path("clients/<uuid:client_id>/labels", clients.ClientLabels.as_view(), name="client-labels"),
    path("clients/<uuid:client_id>/certificates", clients.ClientCertificates.as_view(), name="client-certificates"),
    path("clients/<uuid:client_id>/connections", clients.ClientConnections.as_view(), name="client-connections"),
    path("clients/<uuid:client_id>/vitals", clients.ClientVitals.as_view(), name="client-vitals"),
    path("clients/<uuid:client_id>/updates", rounds.ClientUpdates.as_view(), name="client-updates"),
    path(
        "clients/<uuid:client_id>/participations", rounds.ClientParticipations.as_view(), name="client-participations"
    ),
    path("clients/<uuid:client_id>/suspend", operators.Suspend.as_view(), name="client-suspend"),
    path("clients/<uuid:client_id>/reinstate", operators.Reinstate.as_view(), name="client-reinstate"),
    path("clients/<uuid:client_id>/revoke", operators.Revoke.as_view(), name="client-revoke"),
    path("tokens", tokens.TokenList.as_view(), name="tokens"),
    path("tokens/<int:token_id>", tokens.TokenDetail.as_view(), name="token"),
    path("tokens/<int:token_id>/revoke", tokens.RevokeToken.as_view(), name="token-revoke"),
    path("apps", AppList.as_view(), name="apps"),
    path("apps/<int:app_id>", AppDetail.as_view(), name="app"),
    path("strategies", strategies.StrategyList.as_view(), name="strategies"),
    path("strategies/<slug:name>", strategies.StrategyDetail.as_view(), name="strategy"),
    path("strategies/<slug:name>/versions", strategies.VersionList.as_view(), name="versions"),
    path("strategies/<slug:name>/versions/<int:number>", strategies.VersionDetail.as_view(), name="version"),
    path("strategies/<slug:name>/versions/<int:number>/yaml", strategies.VersionYaml.as_view(), name="version-yaml"),
    path("models", registry.RegisteredModelList.as_view(), name="registry"),
    path("models/<slug:name>", registry.RegisteredModelDetail.as_view(), name="registered-model"),
    path("models/<slug:name>/versions", registry.RegisteredVersionList.as_view(), name="registered-versions"),
    path(
        "models/<slug:name>/versions/<int:number>",
        registry.RegisteredVersionDetail.as_view(),
        name="registered-version",
    ),
    path(
        "models/<slug:name>/versions/<int:number>/lineage", registry.VersionLineage.as_view(), name="registered-lineage"
    ),
    path("models/<slug:name>/versions/<int:number>/stage", registry.MoveVersion.as_view(), name="registered-stage"),
    path("models/<slug:name>/versions/<int:number>/check", registry.CheckVersion.as_view(), name="registered-check"),
    path("models/<slug:name>/versions/<int:number>/file", registry.VersionFile.as_view(), name="registered-file"),
    path(
        "models/<slug:name>/versions/<int:number>/manifest",
        registry.VersionManifest.as_view(),
        name="registered-manifest",
    ),
    path("runs", runs.RunList.as_view(), name="runs"),
    path("rules", rules.Rules.as_view(), name="rules"),
    path("rules/preview", rules.RetentionPreview.as_view(), name="rules-preview"),
    path("comparison", RunComparison.as_view(), name="comparison"),
    path("readiness", Readiness.as_view(), name="readiness"),
    path("queries", QueryList.as_view(), name="queries"),
    path("alerts", alerts.AlertList.as_view(), name="alerts"),
    path("alerts/<int:alert_id>", alerts.AlertDetail.as_view(), name="alert"),
    path("alerts/<int:alert_id>/acknowledge", alerts.AcknowledgeAlert.as_view(), name="alert-acknowledge"),
    path("alerts/<int:alert_id>/mute", alerts.MuteAlert.as_view(), name="alert-mute"),
    path("alert-rules", alerts.RuleList.as_view(), name="alert-rules"),
    path("alert-rules/preview", alerts.RulePreview.as_view(), name="alert-rule-preview"),
    path("alert-rules/<int:rule_id>", alerts.RuleDetail.as_view(), name="alert-rule"),
    path("alert-rules/<int:rule_id>/mute", alerts.MuteRule.as_view(), name="alert-rule-mute"),
    path("webhooks", webhooks.WebhookList.as_view(), name="webhooks"),
    path("webhooks/<uuid:webhook_id>", webhooks.WebhookDetail.as_view(), name="webhook"),
    path("webhooks/<uuid:webhook_id>/rotate", webhooks.RotateSecret.as_view(), name="webhook-rotate"),
    path("webhooks/<uuid:webhook_id>/test", webhooks.TestWebhook.as_view(), name="webhook-test"),
    path("deliveries", webhooks.DeliveryList.as_view(), name="deliveries"),
    path("deliveries/<uuid:delivery_id>", webhooks.DeliveryDetail.as_view(), name="delivery"),
    path("deliveries/<uuid:delivery_id>/redeliver", webhooks.Redeliver.as_view(), name="delivery-redeliver"),
    path("audit", audit.EntryList.as_view(), name="audit"),
    path("audit/<int:number>", audit.EntryDetail.as_view(), name="audit-entry"),
    path("audit/export", audit.Export.as_view(), name="audit-export"),
    path("audit/verification", audit.Verification.as_view(), name="audit-verification"),
]

_run = [
    path("snapshot", runs.RunSnapshot.as_view(), name="run-snapshot"),
    path("commands", runs.RunCommands.as_view(), name="run-commands"),
    path("events", events.RunEvents.as_view(), name="run-events"),
    path("events/stream", events.RunEventStream.as_view(), name="run-event-stream"),
    path("rounds", rounds.RoundList.as_view(), name="rounds"),
    path("rounds/<int:round_number>/participations", panels.RoundParticipations.as_view(), name="round-participations"),
    path("rounds/<int:round_number>/similarity", rounds.RoundSimilarity.as_view(), name="round-similarity"),
    path("participations", rounds.ParticipationList.as_view(), name="participations"),
    path("metrics", rounds.RunMetrics.as_view(), name="run-metrics"),
    path("heat", panels.RunHeat.as_view(), name="run-heat"),
    path("outlook", panels.RunOutlook.as_view(), name="run-outlook"),
    path("clients/<uuid:client_id>", panels.ClientHistory.as_view(), name="run-client"),
    path("diff/<int:before>/<int:after>", panels.ModelDiff.as_view(), name="run-diff"),
    path("report", reports.RunReport.as_view(), name="run-report"),
    path("shares", reports.ShareList.as_view(), name="shares"),
    path("shares/<int:share_id>/revoke", reports.RevokeShare.as_view(), name="share-revoke"),
    path("models", models.RunModels.as_view(), name="run-models"),
    path("models/<int:round_number>", models.RunModel.as_view(), name="run-model"),
    path("models/<int:round_number>/manifest", models.ModelManifest.as_view(), name="run-model-manifest"),
]

urlpatterns = [
    path("installation/federations", installation.InstalledFederations.as_view(), name="installation-federations"),
    path(
        "installation/federations/<slug:slug>/owner", installation.AppointOwner.as_view(), name="installation-appoint"
    ),
    path("schema", meta.SchemaView.as_view(), name="schema"),
    path("docs", meta.Swagger.as_view(), name="docs"),
    path("redoc", meta.Redoc.as_view(), name="redoc"),
    path("health", meta.Health.as_view(), name="health"),
    path("ready", meta.Ready.as_view(), name="ready"),
    path("me", meta.Me.as_view(), name="me"),
    path("ca", CertificateAuthority.as_view(), name="ca"),
    path("enroll", Enrol.as_view(), name="enroll"),
    path("enroll/<uuid:admission_id>", AdmissionState.as_view(), name="admission"),
    path("strategies/schema", strategies.StrategySchema.as_view(), name="strategy-schema"),
    path("strategies/validate", strategies.ValidateStrategy.as_view(), name="strategy-validate"),
    path("federations", FederationList.as_view(), name="federations"),
    path("federations/<slug:slug>", FederationDetail.as_view(), name="federation"),
    path("federations/<slug:slug>/", include(_federation)),
    path("runs/<int:run_id>", runs.RunDetail.as_view(), name="run"),
    path("runs/<int:run_id>/", include(_run)),
    path("queries/<int:query_id>", QueryDetail.as_view(), name="query"),
    path("queries/<int:query_id>/cancel", CancelQuery.as_view(), name="query-cancel"),
    re_path("", meta.nowhere),
]
