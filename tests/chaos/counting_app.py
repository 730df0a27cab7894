"""The digits app, which notes in the file that CHAOS_TRAININGS names each training it has begun, and each it has finished."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from client_agent.apps import digits_numpy
from client_agent.apps.datasets import digits
from client_agent.apps.digits_numpy import MLP, initialise
from client_agent.apps.site import Site, SiteOptions
from client_agent.apps.training import Trainer
from client_agent.sdk import Arrays, Config, Context, FitResult


class CountingTrainer(Trainer):
    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        self._note("begun", config)
        result = super().fit(parameters, config)
        self._note("finished", config)
        return result

    def _note(self, what: str, config: Config) -> None:
        with Path(os.environ["CHAOS_TRAININGS"]).open("a") as file:
            file.write(f"{what} {config['run_id']!s} {config['round']!s}\n")


def client_fn(context: Context) -> Trainer:
    return CountingTrainer(Site.of(digits().shared, SiteOptions.parse(context.options)), initialise, MLP)


app = replace(digits_numpy.app, name="digits-counted", client_fn=client_fn, columns=None)
