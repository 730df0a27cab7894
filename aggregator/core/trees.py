"""What the rules for ensembles of trees share: their settings, what they tell the clients, and what they refuse.

The model of such an app is one open tensor whose bytes are an ensemble (`protos.trees`). XGBoost itself is not needed here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from aggregator.core.strategies.base import RoundContext, RuleConfig, Update, UpdateRejected
from protos.convert import Scalars
from protos.tensors import Array, Parameters, Signature
from protos.trees import BadEnsemble, Ensemble

BYTES_OF_A_TREE = 4_096
BYTES_OF_A_NODE = 256
"""More than XGBoost writes: twelve numbers of at most fifteen characters a node, and some names."""


class TreeRule(RuleConfig):
    """A rule for apps whose model is an ensemble of trees. The settings are told to the clients, and held against their updates."""

    vectors: ClassVar[bool] = False
    returns: ClassVar[str]
    """What a client is asked to send: "new" trees, or "all" of the ensemble."""

    max_depth: Annotated[int, Field(ge=1, le=32, title="Deepest tree")] = 6
    parallel_trees: Annotated[
        int,
        Field(
            ge=1, le=1_000, title="Trees of a boosting round", description="More than one: a small forest each round."
        ),
    ] = 1
    max_trees: Annotated[int, Field(ge=1, le=10_000, title="Most new trees of an update")] = 100

    def refusal(self, signature: Signature) -> str:
        if len(signature.tensors) == 1 and signature.is_open:
            return ""
        return f"{self.title} joins ensembles of trees, and the app's model is made of tensors of fixed size: choose another rule or app."

    def refusal_of_epochs(self, epochs: int) -> str:
        if (trees := epochs * self.parallel_trees) <= self.max_trees:
            return ""
        return (
            f"takes {self.max_trees:,} new trees of an update, and {epochs:,} local epochs, which are boosting rounds, of "
            f"{self.parallel_trees:,} make {trees:,}: raise the most new trees, or lower the epochs."
        )

    def fit_config(self, updates_wanted: int) -> Scalars:
        return {"max_depth": self.max_depth, "num_parallel_tree": self.parallel_trees, "return_trees": self.returns}

    def check_initial(self, parameters: Parameters) -> None:
        (content,) = parameters.values()
        ensemble = parse(content)
        if ensemble.trees:
            raise UpdateRejected(f"A run begins with an ensemble without trees; this one has {len(ensemble.trees)}.")


class Ensembles:
    """One round's ensembles: that which the clients were given, and what is read of their updates."""

    def __init__(self, config: TreeRule, context: RoundContext) -> None:
        self._config = config
        self._context = context
        self._current: Ensemble | None = None

    def current(self) -> Ensemble:
        """Read at its first use, which is in a thread: a large one takes seconds."""
        if self._current is None:
            (content,) = self._context.current.values()
            self._current = Ensemble.parse(content)
        return self._current

    def read(self, update: Update) -> Ensemble:
        """The update's ensemble, made for what the current one is made for. Raises `UpdateRejected`."""
        (content,) = update.parameters.values()
        if content.nbytes > (most := self._largest_update()):
            raise UpdateRejected(
                f"The update has {content.nbytes:,} bytes; the trees that the strategy allows have at most {most:,}."
            )
        ensemble = parse(content)
        if misfit := self.current().header.misfit(ensemble.header):
            raise UpdateRejected(f"The update's trees don't fit the ensemble: {misfit}.")
        return ensemble

    def _largest_update(self) -> int:
        """Bytes of the current ensemble and as many new trees as are allowed: what is longer is not even read."""
        (current,) = self._context.current.values()
        tree = BYTES_OF_A_TREE + BYTES_OF_A_NODE * (2 << self._config.max_depth)
        return current.nbytes + self._config.max_trees * tree

    def check_new(self, ensemble: Ensemble, *, after: int = 0) -> None:
        """Of the trees from number `after` on: raises `UpdateRejected` if the settings don't allow them."""
        new, config = ensemble.trees[after:], self._config
        if not 1 <= len(new) <= config.max_trees:
            raise UpdateRejected(
                f"The update has {len(new):,} new trees; between 1 and {config.max_trees:,} are allowed."
            )
        if (deepest := max(tree.depth for tree in new)) > config.max_depth:
            raise UpdateRejected(f"A tree of the update is {deepest} deep; at most {config.max_depth} is allowed.")
        if ensemble.num_parallel_tree != config.parallel_trees:
            raise UpdateRejected(
                f"The update has {ensemble.num_parallel_tree} trees a boosting round; the strategy says {config.parallel_trees}."
            )

    def as_model(self, ensemble: Ensemble) -> Parameters:
        (name,) = self._context.current
        return {name: ensemble.to_array()}


def parse(content: Array) -> Ensemble:
    """Raises `UpdateRejected`."""
    try:
        return Ensemble.parse(content)
    except BadEnsemble as error:
        raise UpdateRejected(str(error)) from error
