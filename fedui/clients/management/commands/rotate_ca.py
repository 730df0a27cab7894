from __future__ import annotations

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from fedui.clients import rotation
from fedui.clients.authorities import RotationRefused, Stage, trust

NEXT = {
    Stage.STEADY: "No rotation is under way. `begin` starts one.",
    Stage.BEGUN: "A new authority is trusted, the old one still issues. Next: `switch`, once all agents have renewed.",
    Stage.SWITCHED: "The new authority issues, the old one is still trusted. Next: `finish`, once all agents have renewed.",
}


class Command(BaseCommand):
    help = "Replace the certificate authority, in three steps and without cutting an agent off: begin, switch, finish."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("step", choices=["status", "begin", "switch", "finish"])
        parser.add_argument("--force", action="store_true", help="leave agents behind: they must enrol again")

    def handle(self, *args: Any, step: str, force: bool, **options: Any) -> None:
        actor = f"{getpass.getuser()} on the server"
        try:
            if step == "begin":
                rotation.begin(actor)
            elif step == "switch":
                rotation.switch(actor, force=force)
            elif step == "finish":
                rotation.finish(actor, force=force)
        except RotationRefused as error:
            raise CommandError(f"{error} {error.hint}") from error
        self._tell()

    def _tell(self) -> None:
        present = trust()
        self.stdout.write(f"Issuing authority: {present.issuer.fingerprint}")
        if present.other:
            self.stdout.write(f"Also trusted:      {present.other.fingerprint}")
        self.stdout.write(NEXT[present.stage])
        for client in [] if present.stage == Stage.STEADY else rotation.left_behind(present.stage):
            self.stdout.write(f"  has not renewed yet: {client.name}")
        if tokens := rotation.outdated_tokens():
            self.stdout.write(f"  {tokens} unused tokens name the old authority; after `finish` agents refuse them.")
