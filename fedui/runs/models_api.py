"""Global models of runs over REST."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import QuerySet
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404
from django.utils.text import slugify
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from aggregator.checkpoints import files_of
from fedui.api.files import stored_file_response
from fedui.api.serializers import Gives
from fedui.api.views import ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.runs.api import RunView
from fedui.runs.models import ModelVersion
from fedui.runs.outs import ModelOut
from fedui.runs.retention import ModelGone
from fedui.runs.store import model_files


class RunModels(RunView, ListView):
    """The global models of a run, the newest first; those that retention has removed too."""

    noun = "models"
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(ModelOut, many=True)}
    queryset = ModelVersion.objects.none()
    ordering_fields = ("round_number",)
    ordering = "-round_number"

    def rows(self) -> QuerySet[ModelVersion]:
        return self.run().models.all()


class ModelView(RunView):
    noun = "models"

    def model(self) -> ModelVersion:
        """Raises `ModelGone`."""
        found = get_object_or_404(self.run().models.select_related("run"), round_number=self.kwargs["round_number"])
        if found.removed_at:
            raise ModelGone(found)
        return found


class RunModel(ModelView):
    """The global model after a round, as safetensors; whole, or a range of its bytes. The ETag is the SHA-256 of the file."""

    verbs = {"GET": "download"}
    acts = {"GET": Act.READ}
    gives = {
        "GET": Gives(
            media_type="application/octet-stream",
            description="The file.",
            also={
                206: "The Range that was asked for.",
                304: "If-None-Match is its ETag.",
                416: "The Range is beyond its end.",
            },
        )
    }
    refusals = {"GET": (ErrorCode.GONE,)}

    def get(self, request: Request, run_id: int, round_number: int) -> HttpResponseBase:
        model = self.model()
        filename = f"{slugify(model.run.name) or f'run-{model.run_id}'}-round-{model.round_number}.safetensors"
        return stored_file_response(
            request._request,  # noqa: SLF001  # Django wants its own request
            model_files(), model.key, model.size, model.sha256, filename,
        )  # fmt: skip


class ManifestOut(serializers.Serializer[Any]):
    def to_representation(self, instance: Any) -> Any:
        return instance


class ModelManifest(ModelView):
    """What the global model is: its run, round, app and strategy, the SHA-256 of its file, and its tensors."""

    verbs = {"GET": "get_manifest"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(ManifestOut, sparse=False)}
    refusals = {"GET": (ErrorCode.GONE,)}

    def get(self, request: Request, run_id: int, round_number: int) -> Response:
        model = self.model()
        try:
            return Response(json.loads(model_files().read(files_of(model.key)[2])))
        except (FileNotFoundError, ValueError) as error:
            raise Http404(f"The manifest of {model} is missing from the model store.") from error
