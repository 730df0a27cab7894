"""Every error of the agent, and the exit code with which `fedagent` ends on it.

    AgentError                          exit code
    ├── ConfigurationError              3   the settings or the home folder need a person
    │   ├── NotEnrolled                 3
    │   ├── BrokenPolicy                3   the owner's policy can't be read, or says what makes no sense
    │   └── BrokenApp                   3   an app can't be found, loaded or used
    ├── EnrolmentError                  4   the server refused the enrolment
    │   ├── MalformedToken              4
    │   ├── FalseServer                 5   the server isn't the one that the token was made for
    │   └── ServerUnreachable           6   (retryable)
    ├── Dismissed                       7   the server said goodbye for good
    ├── CertificateExpired              8   enrol again
    ├── TaskRefused                     -   this agent can't take the task; told to the server, the agent goes on
    └── TransferError                   -   the server refused a transfer for good; likewise
        └── UpdateTooLate               -   the round was closed before the update was there; nobody's fault

    TaskCancelled                       -   raised inside a client's training loop

Exit code 0 is success (also after SIGINT and SIGTERM), 1 an unexpected error or a problem found by `fedagent doctor`,
2 a wrong command line. A retryable error may go away by itself: a supervisor may run the same command again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


class AgentError(Exception):
    """Base of the agent's errors. The text says what happened and what to do."""

    exit_code = 1
    retryable = False


class ConfigurationError(AgentError):
    exit_code = 3


class NotEnrolled(ConfigurationError):
    pass


class BrokenApp(ConfigurationError):
    pass


class BrokenPolicy(ConfigurationError):
    """`problems` has a line for each."""

    def __init__(self, path: Path, problems: Collection[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"The policy {path} is not in force: {' '.join(self.problems)}")


class EnrolmentError(AgentError):
    """`code` is the server's, for example `token_expired`; empty when the agent itself found the reason."""

    exit_code = 4

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class MalformedToken(EnrolmentError):
    pass


class FalseServer(EnrolmentError):
    exit_code = 5


class ServerUnreachable(EnrolmentError):
    exit_code = 6
    retryable = True


class Dismissed(AgentError):
    exit_code = 7


class CertificateExpired(AgentError):
    exit_code = 8


class TaskRefused(AgentError):
    pass


class TransferError(AgentError):
    pass


class UpdateTooLate(TransferError):
    pass


class TaskCancelled(Exception):
    """The server no longer wants the task's result. Let it pass through your training loop."""
