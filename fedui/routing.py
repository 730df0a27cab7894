from django.urls import path

from fedui.runs.consumers import FederationConsumer, RunConsumer

websocket_urlpatterns = [
    path("ws/runs/<int:run_id>/", RunConsumer.as_asgi()),
    path("ws/federations/<slug:slug>/", FederationConsumer.as_asgi()),
]
