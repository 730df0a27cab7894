"""Addresses of the REST API, version 1."""

from __future__ import annotations

from django.urls import path, re_path

from fedui.analytics.api import CancelQuery, QueryDetail, QueryList
from fedui.api.views import Health
from fedui.clients.api import AdmissionState, CertificateAuthority, Enrol
from fedui.clients.operators_api import ACTS, AdmissionDecision, AdmissionList, ClientAccess
from fedui.clients.presence_api import ClientDetail, ClientList
from fedui.runs.api import ClientUpdates, RoundSimilarity, RunCommands, RunEvents, RunModel, RunSnapshot
from fedui.runs.compare_api import RunComparison
from fedui.runs.panels_api import ClientHistory, ModelDiff, RoundParticipations, RunHeat, RunOutlook
from fedui.runs.readiness_api import Readiness
from fedui.strategies.api import StrategyDetail, StrategyList, StrategySchema, ValidateStrategy

app_name = "api"

_UUID = "[0-9a-f-]{36}"

urlpatterns = [
    path("health", Health.as_view(), name="health"),
    path("ca", CertificateAuthority.as_view(), name="ca"),
    path("enroll", Enrol.as_view(), name="enroll"),
    path("enroll/<uuid:admission_id>", AdmissionState.as_view(), name="admission"),
    path("federations/<slug:slug>/admissions", AdmissionList.as_view(), name="admissions"),
    re_path(
        rf"^federations/(?P<slug>[-\w]+)/admissions/(?P<admission_id>{_UUID})/(?P<decision>admit|refuse)$",
        AdmissionDecision.as_view(),
        name="admission-decide",
    ),
    re_path(
        rf"^federations/(?P<slug>[-\w]+)/clients/(?P<client_id>{_UUID})/(?P<act>{'|'.join(ACTS)})$",
        ClientAccess.as_view(),
        name="client-access",
    ),
    path("strategies/schema", StrategySchema.as_view(), name="strategy-schema"),
    path("strategies/validate", ValidateStrategy.as_view(), name="strategy-validate"),
    path("federations/<slug:slug>/strategies", StrategyList.as_view(), name="strategies"),
    path("federations/<slug:slug>/strategies/<slug:name>", StrategyDetail.as_view(), name="strategy"),
    path("federations/<slug:slug>/clients/<uuid:client_id>/updates", ClientUpdates.as_view(), name="client-updates"),
    path("federations/<slug:slug>/comparison", RunComparison.as_view(), name="comparison"),
    path("federations/<slug:slug>/readiness", Readiness.as_view(), name="readiness"),
    path("federations/<slug:slug>/clients", ClientList.as_view(), name="clients"),
    path("federations/<slug:slug>/clients/<uuid:client_id>", ClientDetail.as_view(), name="client"),
    path("runs/<int:run_id>", RunSnapshot.as_view(), name="run"),
    path("runs/<int:run_id>/commands", RunCommands.as_view(), name="run-commands"),
    path("runs/<int:run_id>/events", RunEvents.as_view(), name="run-events"),
    path("runs/<int:run_id>/heat", RunHeat.as_view(), name="run-heat"),
    path("runs/<int:run_id>/outlook", RunOutlook.as_view(), name="run-outlook"),
    path("runs/<int:run_id>/clients/<uuid:client_id>", ClientHistory.as_view(), name="run-client"),
    path("runs/<int:run_id>/diff/<int:before>/<int:after>", ModelDiff.as_view(), name="run-diff"),
    path("runs/<int:run_id>/rounds/<int:round_number>", RoundParticipations.as_view(), name="round-participations"),
    path("runs/<int:run_id>/rounds/<int:round_number>/similarity", RoundSimilarity.as_view(), name="round-similarity"),
    path("runs/<int:run_id>/models/<int:round_number>", RunModel.as_view(), name="run-model"),
    path("queries", QueryList.as_view(), name="queries"),
    path("queries/<int:query_id>", QueryDetail.as_view(), name="query"),
    path("queries/<int:query_id>/cancel", CancelQuery.as_view(), name="query-cancel"),
]
