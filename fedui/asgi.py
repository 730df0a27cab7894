"""The web process: pages, API, WebSockets. Serve it with `uvicorn fedui.asgi:application --ws wsproto --ws-per-message-deflate false`."""

from __future__ import annotations

import os
import warnings

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connections

from fedui.metrics.sharing import share

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedui.settings")
share("web", settings.METRICS_DIR)
_http = get_asgi_application()  # Loads the apps: what follows imports models.

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402

from fedui.routing import websocket_urlpatterns  # noqa: E402

# Each request has a thread of its own, which nobody closes a lasting connection of.
connections.settings["default"]["CONN_MAX_AGE"] = 0

# WhiteNoise's: Django reads a file into memory before it sends it, and says so. Static files are small; models, which
# are not, go another way (`fedui.api.files`).
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")

application = ProtocolTypeRouter(
    {"http": _http, "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))}
)
