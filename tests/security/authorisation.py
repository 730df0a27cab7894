"""Who may call what: the one table. The test tries every row of it, and `docs/authorisation.md` is made of it.

It is written by hand and knows nothing of the code that decides, so that the two can be held against each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ROLES = ("owner", "operator", "researcher", "auditor", "site_admin")
OUTSIDERS = ("installation_admin", "other_member", "stranger", "anonymous")
"""An installation administrator who is no member; a member of another federation; an account without any; nobody."""

MAY: dict[str, tuple[str, ...]] = {
    "read": ("owner", "operator", "researcher", "auditor"),
    "see_clients": ROLES,
    "revoke_clients": ("owner", "operator", "site_admin"),
    "manage_clients": ("owner", "operator"),
    "manage_tokens": ("owner", "operator"),
    "manage_strategies": ("owner", "operator", "researcher"),
    "manage_runs": ("owner", "operator", "researcher"),
    "promote_models": ("owner", "operator", "researcher"),
    "share_reports": ("owner", "operator"),
    "manage_settings": ("owner", "operator"),
    "manage_alerts": ("owner", "operator"),
    "manage_webhooks": ("owner",),
    "read_audit": ("owner", "operator", "auditor"),
    "manage_members": ("owner",),
    "have_keys": ROLES,
}
"""The rights in a federation, and the roles that have them. Other members are refused; for everybody else nothing is there."""

SCOPES: dict[str, str] = {
    "read": "read",
    "see_clients": "read",
    "revoke_clients": "clients",
    "manage_clients": "clients",
    "manage_tokens": "tokens",
    "manage_strategies": "strategies",
    "manage_runs": "runs",
    "promote_models": "models",
    "share_reports": "reports",
    "manage_settings": "settings",
    "manage_alerts": "alerts",
    "manage_webhooks": "alerts",
    "read_audit": "audit",
    "manage_members": "members",
    "have_keys": "keys",
    "signed_in": "read",
}
"""The one scope of an API key that opens each. Where there is none, no key does."""

ELSEWHERE: dict[str, str] = {
    "anybody": "Everybody, without a sign-in.",
    "signed_in": "Every account.",
    "account": "Every account, by a session alone.",
    "scraper": "Addresses and tokens that the installation names for Prometheus; for others there is nothing.",
    "with_factor": "Accounts that have a second factor; for others there is no such page.",
    "underway": "Who has given a password, follows a link or comes from a provider. Others are sent to sign in, or find nothing.",
    "installation": "Installation administrators, by a session alone; for others there is no such page.",
    "admin": "Installation administrators; others are asked to sign in, or refused.",
}
"""What has nothing to do with a federation."""

API = """
schema                                                GET anybody
docs                                                  GET anybody
redoc                                                 GET anybody
health                                                GET anybody
ready                                                 GET anybody
ca                                                    GET anybody
enroll                                                POST anybody
enroll/<admission_id>                                 GET anybody
me                                                    GET signed_in
installation/federations                              GET installation
installation/federations/<slug>/owner                 POST installation
strategies/schema                                     GET signed_in
strategies/validate                                   POST signed_in
federations                                           GET signed_in, POST account
federations/<slug>                                    GET see_clients, PATCH manage_members
federations/<slug>/members                            GET read
federations/<slug>/members/<member_id>                GET read, PATCH manage_members, DELETE manage_members
federations/<slug>/invitations                        GET manage_members, POST manage_members
federations/<slug>/invitations/<invitation_id>        GET manage_members
federations/<slug>/invitations/<invitation_id>/revoke POST manage_members
federations/<slug>/keys                               GET have_keys, POST have_keys
federations/<slug>/keys/<key_id>                      GET have_keys own
federations/<slug>/keys/<key_id>/revoke               POST have_keys own
federations/<slug>/admissions                         GET manage_clients
federations/<slug>/admissions/<admission_id>          GET manage_clients
federations/<slug>/admissions/<admission_id>/admit    POST manage_clients
federations/<slug>/admissions/<admission_id>/refuse   POST manage_clients
federations/<slug>/clients                            GET see_clients
federations/<slug>/clients/<client_id>                GET see_clients
federations/<slug>/clients/<client_id>/labels         GET see_clients, PUT manage_clients
federations/<slug>/clients/<client_id>/certificates   GET see_clients
federations/<slug>/clients/<client_id>/connections    GET see_clients
federations/<slug>/clients/<client_id>/vitals         GET see_clients
federations/<slug>/clients/<client_id>/updates        GET see_clients
federations/<slug>/clients/<client_id>/participations GET see_clients
federations/<slug>/clients/<client_id>/suspend        POST manage_clients
federations/<slug>/clients/<client_id>/reinstate      POST manage_clients
federations/<slug>/clients/<client_id>/revoke         POST revoke_clients
federations/<slug>/tokens                             GET manage_tokens, POST manage_tokens
federations/<slug>/tokens/<token_id>                  GET manage_tokens
federations/<slug>/tokens/<token_id>/revoke           POST manage_tokens
federations/<slug>/apps                               GET read
federations/<slug>/apps/<app_id>                      GET read
federations/<slug>/strategies                         GET read, POST manage_strategies
federations/<slug>/strategies/<name>                  GET read
federations/<slug>/strategies/<name>/versions         GET read, POST manage_strategies
federations/<slug>/strategies/<name>/versions/<number> GET read
federations/<slug>/strategies/<name>/versions/<number>/yaml GET read
federations/<slug>/runs                               GET read, POST manage_runs
federations/<slug>/rules                              GET read, PUT manage_settings
federations/<slug>/rules/preview                      GET manage_settings
federations/<slug>/comparison                         GET read
federations/<slug>/readiness                          GET read
federations/<slug>/queries                            GET read, POST manage_runs
federations/<slug>/models                             GET read
federations/<slug>/models/<name>                      GET read, PATCH promote_models
federations/<slug>/models/<name>/versions             GET read, POST promote_models
federations/<slug>/models/<name>/versions/<number>    GET read, PATCH promote_models
federations/<slug>/models/<name>/versions/<number>/lineage GET read
federations/<slug>/models/<name>/versions/<number>/stage POST promote_models
federations/<slug>/models/<name>/versions/<number>/check POST promote_models
federations/<slug>/models/<name>/versions/<number>/file GET read
federations/<slug>/models/<name>/versions/<number>/manifest GET read
federations/<slug>/alerts                             GET see_clients
federations/<slug>/alerts/<alert_id>                  GET see_clients
federations/<slug>/alerts/<alert_id>/acknowledge      POST manage_alerts
federations/<slug>/alerts/<alert_id>/mute             POST manage_alerts
federations/<slug>/alert-rules                        GET read, POST manage_alerts
federations/<slug>/alert-rules/preview                POST manage_alerts
federations/<slug>/alert-rules/<rule_id>              GET read, PUT manage_alerts, DELETE manage_alerts
federations/<slug>/alert-rules/<rule_id>/mute         POST manage_alerts
federations/<slug>/webhooks                           GET manage_webhooks, POST manage_webhooks
federations/<slug>/webhooks/<webhook_id>              GET manage_webhooks, PUT manage_webhooks, DELETE manage_webhooks
federations/<slug>/webhooks/<webhook_id>/rotate       POST manage_webhooks
federations/<slug>/webhooks/<webhook_id>/test         POST manage_webhooks
federations/<slug>/deliveries                         GET manage_webhooks
federations/<slug>/deliveries/<delivery_id>           GET manage_webhooks
federations/<slug>/deliveries/<delivery_id>/redeliver POST manage_webhooks
federations/<slug>/audit                              GET read_audit
federations/<slug>/audit/<number>                     GET read_audit
federations/<slug>/audit/export                       GET read_audit
federations/<slug>/audit/verification                 GET read_audit, POST read_audit
runs/<run_id>                                         GET read
runs/<run_id>/snapshot                                GET read
runs/<run_id>/commands                                GET read, POST manage_runs
runs/<run_id>/events                                  GET read
runs/<run_id>/events/stream                           GET read
runs/<run_id>/rounds                                  GET read
runs/<run_id>/rounds/<round_number>/similarity        GET read
runs/<run_id>/rounds/<round_number>/participations    GET read
runs/<run_id>/heat                                    GET read
runs/<run_id>/outlook                                 GET read
runs/<run_id>/clients/<client_id>                     GET read
runs/<run_id>/diff/<before>/<after>                   GET read
runs/<run_id>/participations                          GET read
runs/<run_id>/metrics                                 GET read
runs/<run_id>/models                                  GET read
runs/<run_id>/models/<round_number>                   GET read
runs/<run_id>/models/<round_number>/manifest          GET read
runs/<run_id>/report                                  GET read
runs/<run_id>/shares                                  GET read, POST share_reports
runs/<run_id>/shares/<share_id>/revoke                POST share_reports
queries/<query_id>                                    GET read
queries/<query_id>/cancel                             POST manage_runs
"""

FEDERATION_PAGES = """
./                                           GET see_clients
runs/                                        GET read
runs/new/                                    GET manage_runs, POST manage_runs
runs/compare/                                GET read
runs/<run_id>/                               GET read
runs/<run_id>/state/                         GET read
runs/<run_id>/do/<kind>/                     POST manage_runs
clients/                                     GET see_clients
clients/<client_id>/                         GET see_clients
clients/<client_id>/revoke/                  POST revoke_clients
clients/<client_id>/suspend/                 POST manage_clients
clients/<client_id>/reinstate/               POST manage_clients
clients/readiness/                           GET read
clients/waiting/                             GET manage_clients
clients/waiting/<admission_id>/admit/        POST manage_clients
clients/waiting/<admission_id>/refuse/       POST manage_clients
strategies/                                  GET read
strategies/new/                              GET manage_strategies, POST manage_strategies
strategies/<name>/                           GET read, POST manage_strategies
apps/                                        GET read
models/                                      GET read
models/<name>/                               GET read
models/<name>/describe/                      POST promote_models
models/<name>/<number>/                      GET read
models/<name>/<number>/change/               POST promote_models
models/<name>/<number>/stage/                POST promote_models
models/<name>/<number>/check/                POST promote_models
models/<name>/<number>/manifest/             GET read
models/<name>/<number>/file/                 GET read
runs/<run_id>/promote/                       GET promote_models, POST promote_models
runs/<run_id>/report/                        GET read
runs/<run_id>/shares/                        GET read
runs/<run_id>/shares/new/                    POST share_reports
runs/<run_id>/shares/<share_id>/revoke/      POST share_reports
alerts/                                      GET see_clients
alerts/count/                                GET see_clients
alerts/acknowledge/                          POST manage_alerts
alerts/<alert_id>/acknowledge/               POST manage_alerts
alerts/<alert_id>/mute/                      POST manage_alerts
search/                                      GET see_clients
views/                                       GET see_clients, POST see_clients
views/<view_id>/change/                      POST see_clients own
views/<view_id>/delete/                      POST see_clients own
queries/                                     GET read
queries/new/                                 GET manage_runs, POST manage_runs
queries/<query_id>/                          GET read
queries/<query_id>/bins/                     GET read
queries/<query_id>/cancel/                   POST manage_runs
tokens/                                      GET manage_tokens
tokens/new/                                  POST manage_tokens
tokens/<token_id>/revoke/                    POST manage_tokens
audit/                                       GET read_audit
audit/<number>/                              GET read_audit
audit/verify/                                POST read_audit
audit/export/                                POST read_audit
settings/                                    GET read
settings/keys/                               GET have_keys
settings/keys/new/                           POST have_keys
settings/keys/<key_id>/revoke/               POST have_keys own
settings/runs/                               POST manage_settings
settings/retention/                          GET manage_settings
settings/general/                            POST manage_members
settings/rules/new/                          GET manage_alerts, POST manage_alerts
settings/rules/preview/                      POST manage_alerts
settings/rules/<rule_id>/                    GET manage_alerts, POST manage_alerts
settings/rules/<rule_id>/switch/             POST manage_alerts
settings/rules/<rule_id>/mute/               POST manage_alerts
settings/rules/<rule_id>/remove/             POST manage_alerts
settings/webhooks/new/                       POST manage_webhooks
settings/webhooks/<webhook_id>/              GET manage_webhooks, POST manage_webhooks
settings/webhooks/<webhook_id>/test/         POST manage_webhooks
settings/webhooks/<webhook_id>/rotate/       POST manage_webhooks
settings/webhooks/<webhook_id>/remove/       POST manage_webhooks
settings/webhooks/<webhook_id>/deliveries/<delivery_id>/again/ POST manage_webhooks
settings/members/<member_id>/                GET manage_members, POST manage_members
settings/members/<member_id>/remove/         POST manage_members
settings/invitations/new/                    POST manage_members
settings/invitations/<invitation_id>/revoke/ POST manage_members
"""

PAGES = """
./                                             GET signed_in
federations/new/                               GET signed_in, POST signed_in
account/                                       GET signed_in
account/email/                                 POST signed_in
account/sessions/end/                          POST signed_in
invitations/<secret>/                          GET anybody, POST underway
installation/                                  GET installation
installation/accounts/<user_id>/<act>/         POST installation
installation/federations/                      GET installation
installation/federations/<slug>/owner/         POST installation
installation/audit/                            GET installation
installation/audit/<number>/                   GET installation
installation/audit/verify/                     POST installation
installation/audit/export/                     POST installation
reports/<secret>/                              GET anybody
metrics                                        GET scraper
install.sh                                     GET anybody
install.ps1                                    GET anybody
install/<filename>                             GET anybody
"""

ACCOUNTS = """
login/                                         GET anybody, POST anybody
logout/                                        POST anybody
accounts/login/                                GET anybody, POST anybody
accounts/logout/                               GET anybody, POST anybody
accounts/inactive/                             GET anybody
accounts/signup/                               GET anybody, POST anybody
accounts/reauthenticate/                       GET signed_in, POST signed_in
accounts/reauthenticate/code/                  GET signed_in, POST signed_in
accounts/reauthenticate/code/confirm/          GET signed_in, POST signed_in
accounts/email/                                GET anybody, POST anybody
accounts/sessions/                             GET anybody, POST anybody
accounts/3rdparty/                             GET anybody, POST anybody
accounts/2fa/                                  GET anybody, POST anybody
accounts/confirm-email/                        GET anybody
accounts/confirm-email/<key>/                  GET underway, POST underway
accounts/password/change/                      GET signed_in, POST signed_in
accounts/password/set/                         GET signed_in, POST signed_in
accounts/password/reset/                       GET anybody, POST anybody
accounts/password/reset/done/                  GET anybody
accounts/password/reset/key/done/              GET anybody
accounts/password/reset/key/<uidb36>-<key>/    GET anybody, POST anybody
accounts/login/code/confirm/                   GET underway, POST underway
accounts/2fa/authenticate/                     GET underway, POST underway
accounts/2fa/reauthenticate/                   GET signed_in, POST signed_in
accounts/2fa/totp/activate/                    GET signed_in, POST signed_in
accounts/2fa/totp/deactivate/                  GET with_factor, POST with_factor
accounts/2fa/recovery-codes/                   GET with_factor
accounts/2fa/recovery-codes/generate/          GET signed_in, POST signed_in
accounts/2fa/recovery-codes/download/          GET with_factor
accounts/3rdparty/login/cancelled/             GET anybody
accounts/3rdparty/login/error/                 GET underway
accounts/3rdparty/signup/                      GET underway, POST underway
accounts/social/login/cancelled/               GET anybody
accounts/social/login/error/                   GET anybody
accounts/social/signup/                        GET anybody, POST anybody
accounts/social/connections/                   GET anybody, POST anybody
accounts/oidc/<provider_id>/login/             GET underway, POST underway
accounts/oidc/<provider_id>/login/callback/    GET underway
"""

SOCKETS = """
ws/runs/<run_id>/       CONNECT read
ws/federations/<slug>/  CONNECT see_clients
"""


@dataclass(frozen=True)
class Row:
    """One method of one address."""

    address: str
    method: str
    right: str
    own_object: bool = False
    """Members find their own of these alone; of API keys an owner all."""

    @property
    def place(self) -> str:
        return f"{self.method} {self.address}"


def _rows(table: str, prefix: str = "") -> Iterator[Row]:
    for line in table.strip().splitlines():
        address, _, rights = line.partition(" ")
        for one in rights.split(","):
            method, right, *note = one.split()
            yield Row(prefix + address.removeprefix("./"), method, right, bool(note))


ROWS: tuple[Row, ...] = (
    *_rows(API, "api/v1/"),
    *_rows(FEDERATION_PAGES, "f/<slug>/"),
    *_rows(PAGES),
    *_rows(ACCOUNTS),
)
SOCKET_ROWS: tuple[Row, ...] = tuple(_rows(SOCKETS))


# --- the document ----------------------------------------------------------------------------------------------------

HEAD = """# Who may call what

Made of the table in [tests/security/authorisation.py](../tests/security/authorisation.py); `make api` writes it. The tests try each row
by everybody named here, in their own federation and in a foreign one, with foreign objects in their own, and by API keys of each scope. An
address without a row fails them.

- Who isn't a member of a federation finds nothing of it: 404. So does a member with objects of another federation, and a site admin with
  other sites' clients.
- A member whose role lacks the right is refused: 403. Runs and queries, which are asked for by number alone, aren't there for who may not
  read: 404. Who isn't signed in is asked to: 401, or the sign-in page.
- An installation administrator has accounts, the list of federations, the whole audit log and Django's admin. What they are in a federation
  their membership says; without one they find nothing of it. In a federation whose owners are all deactivated they appoint another owner.
- An API key opens what its scope says, in its federation, as far as its member's role goes; and no page.
- Verifying a model's file (`check`) has a worker read it and writes what was found beside the version and into the audit log: it takes
  `promote_models`, on the page as over REST. Who may only read downloads the file and holds it against its SHA-256.
- Methods that aren't listed are closed. Unsafe calls of a session need its CSRF token.
"""


def document() -> str:
    return "\n".join([HEAD, *_rights(), *_elsewhere(), *_table("REST API", ROWS, "api/"), *_pages(), *_sockets()])


def _rights() -> Iterator[str]:
    yield "## Rights in a federation\n"
    yield f"| right | {' | '.join(role.replace('_', ' ') for role in ROLES)} | scope of a key |"
    yield f"|---|{'---|' * len(ROLES)}---|"
    for right, roles in MAY.items():
        marks = " | ".join("yes" if role in roles else "" for role in ROLES)
        yield f"| `{right}` | {marks} | `{SCOPES[right]}` |"
    yield ""


def _elsewhere() -> Iterator[str]:
    yield "## Other rights\n"
    yield "| right | who |"
    yield "|---|---|"
    for right, who in ELSEWHERE.items():
        scope = f" A key needs the scope `{SCOPES[right]}`." if right in SCOPES else ""
        yield f"| `{right}` | {who}{scope} |"
    yield ""


def _pages() -> Iterator[str]:
    yield from _table("Pages of a federation", ROWS, "f/")
    others = tuple(row for row in ROWS if not row.address.startswith(("api/", "f/")))
    yield from _table("Other pages", others, "")
    yield "Everything under `/admin/` is `admin`.\n"


def _sockets() -> Iterator[str]:
    yield from _table("WebSockets", SOCKET_ROWS, "")


def _table(title: str, rows: tuple[Row, ...], prefix: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| address | |"
    yield "|---|---|"
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.address.startswith(prefix):
            found.setdefault(row.address, []).append(f"{row.method} `{row.right}`{' (own)' * row.own_object}")
    for address, rights in found.items():
        yield f"| `/{address}` | {' · '.join(rights)} |"
    yield ""


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
