"""The agent of a data owner: an SDK for training code, and the program `fedagent` that runs it for a federation."""

from client_agent.errors import (
    AgentError,
    BrokenApp,
    BrokenPolicy,
    CertificateExpired,
    ConfigurationError,
    Dismissed,
    EnrolmentError,
    FalseServer,
    MalformedToken,
    NotEnrolled,
    ServerUnreachable,
    TaskCancelled,
    TaskRefused,
    TransferError,
)
from client_agent.sdk import App, ClientLike, Context, DataCard, NumPyClient, Progress

__version__ = "0.1.0"

__all__ = [
    "AgentError",
    "App",
    "BrokenApp",
    "BrokenPolicy",
    "CertificateExpired",
    "ClientLike",
    "ConfigurationError",
    "Context",
    "DataCard",
    "Dismissed",
    "EnrolmentError",
    "FalseServer",
    "MalformedToken",
    "NotEnrolled",
    "NumPyClient",
    "Progress",
    "ServerUnreachable",
    "TaskCancelled",
    "TaskRefused",
    "TransferError",
]
