"""Settings, from environment variables alone. Without any, FedUI runs on this machine for this machine."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from csp.constants import NONE, SELF, UNSAFE_INLINE

from fedui import environment
from fedui.logging import logging_config

env = environment.Environment()
BASE_DIR = Path(__file__).resolve().parent.parent

# --- where things are ------------------------------------------------------------------------------------------------

DATA_DIR = environment.data_folder(Path(env.text("FEDUI_DATA_DIR", str(BASE_DIR / "var"))).resolve())
MODEL_DIR = DATA_DIR / "models"
PKI_DIR = DATA_DIR / "pki"
MODEL_STORE = environment.model_store("FEDUI_MODEL_STORE", env.text("FEDUI_MODEL_STORE", ""))
"""`s3://bucket/prefix`; empty: the folder `MODEL_DIR`."""
MODEL_STORE_ENDPOINT = env.text("FEDUI_MODEL_STORE_ENDPOINT", "")
"""The address of an S3-compatible server. Empty: that of S3."""
REDIS_URL = env.text("REDIS_URL", "redis://127.0.0.1:6379/0")

DATABASES = {"default": environment.database(env.text("DATABASE_URL", f"sqlite:///{DATA_DIR / 'fedui.sqlite3'}"))}
IDLE_IN_TRANSACTION_SECONDS = 10.0
"""After which PostgreSQL ends a connection that does nothing in an open transaction: a frozen worker loses its locks with its lease."""
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- who may reach it ------------------------------------------------------------------------------------------------

PUBLIC_URL = environment.web_url("FEDUI_PUBLIC_URL", env.text("FEDUI_PUBLIC_URL", "http://127.0.0.1:8000"))
_public = urlsplit(PUBLIC_URL)

DEBUG: bool = env.bool("FEDUI_DEBUG", default=False)
SECRET_KEY = env.text("FEDUI_SECRET_KEY", "") or environment.secret_key(DATA_DIR / "secret_key")
SECRET_KEY_FALLBACKS = env.names("FEDUI_SECRET_KEY_FALLBACKS", [])
"""Former keys, whose sessions and seals are still taken."""
ALLOWED_HOSTS = env.names("FEDUI_ALLOWED_HOSTS", sorted({"127.0.0.1", "localhost", "[::1]", str(_public.hostname)}))
CSRF_TRUSTED_ORIGINS = env.names("FEDUI_CSRF_TRUSTED_ORIGINS", [f"{_public.scheme}://{_public.netloc}"])

SECURE: bool = env.bool("FEDUI_SECURE", default=not all(map(environment.is_loopback, ALLOWED_HOSTS)))
"""Whether people reach the pages by HTTPS. The server itself speaks plain HTTP, behind a proxy that does TLS."""

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if SECURE else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "style-src": [SELF, UNSAFE_INLINE],  # Plotly styles its figures inline.
        "img-src": [SELF, "data:", "blob:"],
        "connect-src": [SELF],  # Covers WebSockets of the same origin.
        "object-src": [NONE],
        "frame-ancestors": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
    }
}

# --- people ----------------------------------------------------------------------------------------------------------

SECOND_FACTOR = environment.choice(
    "FEDUI_SECOND_FACTOR", env.text("FEDUI_SECOND_FACTOR", "nobody"), ("nobody", "managers", "everybody")
)
"""Whose sign-in takes a second factor, in every federation; a federation may ask for it of more."""
OIDC = environment.single_sign_on(
    issuer=env.text("FEDUI_OIDC_ISSUER", ""),
    client_id=env.text("FEDUI_OIDC_CLIENT_ID", ""),
    client_secret=env.text("FEDUI_OIDC_CLIENT_SECRET", ""),
    name=env.text("FEDUI_OIDC_NAME", "single sign-on"),
)
OIDC_SIGNUP: bool = env.bool("FEDUI_OIDC_SIGNUP", default=False)
"""Whether whoever the provider knows gets an account. Otherwise the provider opens accounts that are linked to it, or invitations."""
OIDC_SECOND_FACTOR: bool = env.bool("FEDUI_OIDC_SECOND_FACTOR", default=False)
"""Whether the provider asks for a second factor, so that FedUI need not for accounts without a password."""
if OIDC:
    CONTENT_SECURITY_POLICY["DIRECTIVES"]["form-action"].append(
        OIDC["settings"]["origin"]
    )  # browsers hold redirects to it
SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [OIDC] if OIDC else []}}
SOCIALACCOUNT_ADAPTER = "fedui.accounts.adapters.SingleSignOnAdapter"
SOCIALACCOUNT_QUERY_EMAIL = False
SOCIALACCOUNT_EMAIL_VERIFICATION = "none"

vars().update(environment.email(env.text("FEDUI_EMAIL_URL", "consolemail://")))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("FEDUI_EMAIL_FROM", f"FedUI <fedui@{_public.hostname}>")

WEBHOOK_NETWORKS = environment.networks("FEDUI_WEBHOOK_NETWORKS", env.names("FEDUI_WEBHOOK_NETWORKS", []))
"""Private networks that webhooks may lead to. All others are refused, whatever a name resolves to."""
WEBHOOK_CA_FILE = env.text("FEDUI_WEBHOOK_CA_FILE", "")
"""PEM: authorities beside the system's that receivers' certificates may come from."""

AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "login"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
ACCOUNT_ADAPTER = "fedui.accounts.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "email", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_UNIQUE_EMAIL = False  # Nothing is decided by an address: no account is found or linked by it.
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = False  # Nobody lets this server write to strangers.
ACCOUNT_EMAIL_SUBJECT_PREFIX = "FedUI: "
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_RATE_LIMITS = {"login": "60/m/ip", "login_failed": "30/m/ip,10/5m/key"}
ACCOUNT_DEFAULT_HTTP_PROTOCOL = _public.scheme
MFA_ADAPTER = "fedui.accounts.adapters.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = f"FedUI {_public.hostname}"
USERSESSIONS_TRACK_ACTIVITY = False

# Five wrong passwords lock an account for a quarter of an hour for the address that they came from, and for no other: nobody can lock
# somebody else out.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_CLIENT_IP_CALLABLE = "fedui.web.access.address_of"
AXES_LOCKOUT_CALLABLE = "fedui.accounts.views.locked_out"
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
LOGIN_REDIRECT_URL = "/"
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# --- agents ----------------------------------------------------------------------------------------------------------

GRPC_BIND = environment.address("FEDUI_GRPC_BIND", env.text("FEDUI_GRPC_BIND", "127.0.0.1:50051"))
GRPC_ADDRESS = environment.address("FEDUI_GRPC_ADDRESS", env.text("FEDUI_GRPC_ADDRESS", GRPC_BIND))
"""What agents are told to connect to."""
GRPC_HOSTS = env.names("FEDUI_GRPC_HOSTS", sorted({environment.host_of(GRPC_ADDRESS), "localhost", "127.0.0.1", "::1"}))
"""Names and addresses in the certificate of the gRPC server."""
CLIENT_CERTIFICATE_HOURS = environment.positive(
    "FEDUI_CLIENT_CERTIFICATE_HOURS", env.text("FEDUI_CLIENT_CERTIFICATE_HOURS", "24")
)
"""Life of a client's certificate. Agents renew theirs at two thirds of it."""
UPLOAD_DIR = DATA_DIR / "uploads"
TRANSFER_LIMITS = environment.transfer_limits(
    uploads_at_once=env.int("FEDUI_UPLOADS_AT_ONCE", default=16),
    idle_seconds=env.float("FEDUI_TRANSFER_IDLE_SECONDS", default=60.0),
    least_rate=env.float("FEDUI_TRANSFER_LEAST_BYTES_PER_SECOND", default=4096.0),
    most_rate=env.float("FEDUI_TRANSFER_MOST_BYTES_PER_SECOND", default=float("inf")),
    spool_bytes=env.int("FEDUI_UPLOAD_SPOOL_BYTES", default=64 * 1024**3),
    keep_seconds=env.float("FEDUI_UPLOAD_KEEP_SECONDS", default=600.0),
)
MAX_RUNS = environment.not_negative("FEDUI_MAX_RUNS", env.int("FEDUI_MAX_RUNS", default=16))
"""That run at once; the others wait in the queue. 0: no limit."""
MAX_RUNS_PER_FEDERATION = environment.not_negative(
    "FEDUI_MAX_RUNS_PER_FEDERATION", env.int("FEDUI_MAX_RUNS_PER_FEDERATION", default=0)
)
"""Where a federation sets no limit of its own. 0: no other limit than that of all."""
KEEP_CHECKPOINTS = environment.kept_checkpoints("FEDUI_KEEP_CHECKPOINTS", env.text("FEDUI_KEEP_CHECKPOINTS", "all"))
KEEP_PROGRESS_DAYS = environment.not_negative(
    "FEDUI_KEEP_PROGRESS_DAYS", env.int("FEDUI_KEEP_PROGRESS_DAYS", default=0)
)
KEEP_LOG_DAYS = environment.not_negative("FEDUI_KEEP_LOG_DAYS", env.int("FEDUI_KEEP_LOG_DAYS", default=0))
"""What is kept of runs where a federation doesn't say it; of events for so many days after a run's end, 0 for ever."""
ENROLMENTS_PER_MINUTE: int = env.int("FEDUI_ENROLMENTS_PER_MINUTE", default=60)
"""From one address, refused ones included."""
AGENT_PACKAGE = env.text("FEDUI_AGENT_PACKAGE", "")
"""What sites install, as pip takes it. Empty: a wheel that this server makes of its own files."""
AGENT_INDEX_URL = env.text("FEDUI_AGENT_INDEX_URL", "")
"""Where sites' pip finds packages. Empty: wherever it is set to look."""
AGENT_IMAGE = env.text("FEDUI_AGENT_IMAGE", "python:3.13-slim")
"""The container image of the install line for Docker: any with a shell and Python 3.11 or newer."""

# --- Django ----------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "allauth.usersessions",
    "axes",
    "channels",
    "csp",
    "django_filters",
    "django_htmx",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rest_framework",
    "fedui",
    "fedui.api",
    "fedui.accounts",
    "fedui.federations",
    "fedui.audit",
    "fedui.keys",
    "fedui.clients",
    "fedui.catalog",
    "fedui.strategies",
    "fedui.runs",
    "fedui.analytics",
    "fedui.registry",
    "fedui.reports",
    "fedui.bookmarks",
    "fedui.alerts",
    "fedui.metrics",
    "fedui.workers",
    "fedui.web",
]

MIDDLEWARE = [
    "fedui.log_context.RequestContext",
    "fedui.metrics.middleware.RequestMetrics",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "fedui.audit.origin.OriginMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
    "fedui.web.outage.OutageMiddleware",
]

ROOT_URLCONF = "fedui.urls"
ASGI_APPLICATION = "fedui.asgi.application"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "fedui.staticfiles.PlotlyFinder",
]
_static_storage = (
    "django.contrib.staticfiles.storage.StaticFilesStorage" if DEBUG else "fedui.staticstorage.ModuleStorage"
)
WHITENOISE_ALLOW_ALL_ORIGINS = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": _static_storage},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "fedui.keys.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["fedui.api.access.NamedAct"],
    "DEFAULT_PARSER_CLASSES": ["fedui.api.parsers.SmallJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "fedui.api.schema.Schema",
    "EXCEPTION_HANDLER": "fedui.api.problems.exception_handler",
    "URL_FORMAT_OVERRIDE": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "FedUI",
    "VERSION": "1",
    "DESCRIPTION": "Everything that the pages can do, a program can do here, under the same rules. docs/api.md has the conventions.",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": [],
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
}
API_CALLS_PER_MINUTE: int = env.int("FEDUI_API_CALLS_PER_MINUTE", default=1200)
"""Of one account, or of one API key."""
API_STRANGERS_PER_MINUTE: int = env.int("FEDUI_API_STRANGERS_PER_MINUTE", default=120)
"""Of one address, without a sign-in."""
API_STREAMS = environment.at_least_one("FEDUI_API_STREAMS", env.int("FEDUI_API_STREAMS", default=20))
"""Event streams that one account, or one API key, may have open at a time."""

METRICS_TOKEN = env.text("FEDUI_METRICS_TOKEN", "")
METRICS_NETWORKS = environment.networks("FEDUI_METRICS_NETWORKS", env.names("FEDUI_METRICS_NETWORKS", []))
"""Who reads /metrics: with the token, from the networks; of the two what is set. Neither: nobody."""
METRICS_BIND = env.text("FEDUI_METRICS_BIND", "")
"""Where a worker serves its own metrics; empty: nowhere."""
if METRICS_BIND:
    environment.address("FEDUI_METRICS_BIND", METRICS_BIND)
METRICS_DIR = DATA_DIR / "metrics" / socket.gethostname()

LOGGING = logging_config(
    log_format=environment.choice("FEDUI_LOG_FORMAT", env.text("FEDUI_LOG_FORMAT", "text"), ("text", "json")),
    level=environment.choice("FEDUI_LOG_LEVEL", env.text("FEDUI_LOG_LEVEL", "INFO").upper(), environment.LOG_LEVELS),
)

# --- Redis: cache, live updates, task queue --------------------------------------------------------------------------

CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "fedui",
        # Each call of the API is counted there: a Redis that hangs must hold none up for long.
        "OPTIONS": {"socket_connect_timeout": 1.0, "socket_timeout": 1.0},
    }
}

_layers: dict[str, dict[str, Any]] = {
    "memory": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
    "redis": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL], "prefix": "fedui"},
    },
}
_layer = env.text("FEDUI_CHANNEL_LAYER", "redis")
CHANNEL_LAYERS = {"default": _layers[environment.choice("FEDUI_CHANNEL_LAYER", _layer, tuple(_layers))]}

CELERY_BROKER_URL = environment.broker_url(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A message is a hint, acknowledged when it is taken: the lease in the database sees to it that a run is driven on.
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {"aggregation.*": {"queue": "aggregation"}}
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "take-up-ownerless-runs": {"task": "runs.dispatch_ownerless", "schedule": timedelta(seconds=10)},
    "apply-retention": {"task": "runs.apply_retention", "schedule": timedelta(hours=1)},
    "expire-leases-of-clients": {"task": "clients.expire_leases", "schedule": timedelta(seconds=10)},
    "forget-old-history": {"task": "clients.forget_old_history", "schedule": timedelta(minutes=10)},
    "take-up-ownerless-queries": {"task": "analytics.dispatch_ownerless", "schedule": timedelta(seconds=10)},
    "forget-old-answers": {"task": "api.forget_expired", "schedule": timedelta(hours=1)},
    "evaluate-alert-rules": {
        "task": "alerts.evaluate",
        "schedule": timedelta(seconds=15),
        "options": {"expires": 15},
    },
    "deliver-what-is-due": {"task": "alerts.deliver", "schedule": timedelta(seconds=5), "options": {"expires": 5}},
    "forget-old-alerts": {"task": "alerts.forget", "schedule": timedelta(hours=6)},
    "verify-the-audit-log": {"task": "audit.verify", "schedule": timedelta(days=1)},
}
