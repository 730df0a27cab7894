"""The registry of models over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import Http404, HttpResponseBase
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.registry.files import manifest_of, version_file
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage
from fedui.registry.reading import figures_of, lineage_of, versions_with_sources
from fedui.registry.services import ask_for_check, describe_model, describe_version, move, promote
from fedui.runs.models import ModelVersion
from fedui.runs.models_api import ManifestOut

NOTES_LENGTH = 4000


class RegisteredModelOut(serializers.Serializer[RegisteredModel]):
    name = serializers.CharField()
    description = serializers.CharField(help_text="What it is for.")
    versions = serializers.IntegerField(source="version_count")
    production = serializers.IntegerField(allow_null=True, help_text="Number of the version in production.")
    created_at = serializers.DateTimeField()
    changed_at = serializers.DateTimeField()


class RegisteredVersionOut(serializers.Serializer[RegisteredVersion]):
    number = serializers.IntegerField()
    stage = serializers.ChoiceField(choices=Stage.choices, source="status")
    tags = serializers.ListField(child=serializers.CharField())
    notes = serializers.CharField()
    run = serializers.IntegerField(source="source.run_id")
    round = serializers.IntegerField(source="source.round_number")
    strategy = serializers.CharField(source="source.run.strategy_version", help_text="With its version.")
    app = serializers.CharField(source="source.run.app", help_text="With its version.")
    sha256 = serializers.CharField(source="source.sha256", help_text="Of the file.")
    size = serializers.IntegerField(source="source.size", help_text="Bytes of the file.")
    promoted_by = serializers.CharField(source="promoted_by.username", default=None, allow_null=True)
    promoted_at = serializers.DateTimeField()
    checked_at = serializers.DateTimeField(
        allow_null=True, help_text="When the file was last held against its SHA-256."
    )
    check_fault = serializers.CharField(help_text="What was wrong then; empty if nothing was.")
    metrics = serializers.SerializerMethodField()

    def get_metrics(self, version: RegisteredVersion) -> dict[str, float]:
        """After its round, each from the most trusted source."""
        known = version.__dict__.get("known_figures")
        return dict(known if known is not None else figures_of([version.source])[version.source_id])


class AncestorOut(serializers.Serializer[Any]):
    run = serializers.IntegerField(source="source.run_id")
    round = serializers.IntegerField(source="source.round_number")
    sha256 = serializers.CharField(source="source.sha256")
    registered_as = serializers.ListField(child=serializers.CharField(), source="registered")


class LineageOut(serializers.Serializer[Any]):
    ancestors = AncestorOut(many=True, help_text="Checkpoints of other runs that it goes back to, the nearest first.")


class ModelChange(Body):
    description = serializers.CharField(max_length=NOTES_LENGTH, allow_blank=True)


class Description(Body):
    tags = serializers.ListField(child=serializers.CharField(max_length=200), max_length=100, required=False)
    notes = serializers.CharField(max_length=NOTES_LENGTH, allow_blank=True, required=False)


class Promotion(Body):
    run = serializers.IntegerField(min_value=1, max_value=2**62)
    round = serializers.IntegerField(min_value=0, max_value=2**31 - 1)
    tags = serializers.ListField(child=serializers.CharField(max_length=200), max_length=100, default=list)
    notes = serializers.CharField(max_length=NOTES_LENGTH, allow_blank=True, default="")


class Move(Body):
    stage = serializers.ChoiceField(choices=Stage.choices)
    note = serializers.CharField(max_length=400, allow_blank=True, default="", help_text="Why.")


class RegistryView(ApiView):
    noun = "registry"

    def models(self) -> QuerySet[RegisteredModel]:
        production = RegisteredVersion.objects.filter(model=OuterRef("pk"), status=Stage.PRODUCTION).values("number")
        counted = self.federation.registered_models.select_related("federation")
        return counted.annotate(version_count=Count("versions"), production=Subquery(production[:1]))

    def model(self) -> RegisteredModel:
        return get_object_or_404(self.models(), name=self.kwargs["name"])

    def versions(self) -> QuerySet[RegisteredVersion]:
        return versions_with_sources().filter(
            model__federation=self.membership.federation_id, model__name=self.kwargs["name"]
        )

    def version(self) -> RegisteredVersion:
        return get_object_or_404(self.versions(), number=self.kwargs["number"])

    def locked(self) -> RegisteredVersion:
        """To be changed: unchanged since it was read, where the caller says so. The model before its version, as `move` locks them."""
        get_object_or_404(RegisteredModel.objects.select_for_update(), pk=self.model().pk)
        version = get_object_or_404(self.versions().select_for_update(of=("self",)), number=self.kwargs["number"])
        self.must_match(RegisteredVersionOut(version).data)
        return version


class RegisteredModelList(RegistryView, ListView):
    """The models that a federation stands by: names under which versions are promoted."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(RegisteredModelOut, many=True)}
    queryset = RegisteredModel.objects.none()
    ordering_fields = ("name", "created_at", "changed_at")
    ordering = "name"

    def rows(self) -> QuerySet[RegisteredModel]:
        return self.models()


class RegisteredModelDetail(RegistryView):
    """One name, and which of its versions is in production."""

    acts = {"GET": Act.READ, "PATCH": Act.PROMOTE_MODELS}
    takes = {"PATCH": ModelChange}
    gives = {"GET": Gives(RegisteredModelOut), "PATCH": Gives(RegisteredModelOut)}

    def get(self, request: Request, slug: str, name: str) -> Response:
        return Response(RegisteredModelOut(self.model()).data)

    def patch(self, request: Request, slug: str, name: str) -> Response:
        """Say what it is for."""
        wanted = self.body()
        get_object_or_404(RegisteredModel.objects.select_for_update(), pk=self.model().pk)
        model = self.model()
        self.must_match(RegisteredModelOut(model).data)
        describe_model(model, self.actor, wanted["description"], address=self.address)
        return Response(RegisteredModelOut(self.model()).data)


class VersionFilters(filters.Filters):
    stage = filters.ChoiceFilter(field_name="status", choices=Stage.choices)


class RegisteredVersionList(RegistryView, ListView):
    """The versions of a model, the newest first, with their metrics."""

    verbs = {"GET": "list_versions", "POST": "promote"}
    acts = {"GET": Act.READ, "POST": Act.PROMOTE_MODELS}
    takes = {"POST": Promotion}
    gives = {"GET": Gives(RegisteredVersionOut, many=True), "POST": Gives(RegisteredVersionOut, 201)}
    refusals = {"POST": (ErrorCode.GONE,)}
    queryset = RegisteredVersion.objects.none()
    filterset_class = VersionFilters
    ordering_fields = ("number",)
    ordering = "-number"

    def rows(self) -> QuerySet[RegisteredVersion]:
        self.model()
        return self.versions()

    def prepared(self, page: list[RegisteredVersion]) -> list[RegisteredVersion]:
        figures = figures_of(version.source for version in page)
        for version in page:
            version.__dict__["known_figures"] = figures[version.source_id]
        return page

    def post(self, request: Request, slug: str, name: str) -> Response:
        """Promote the checkpoint of a run's round: the next version of this name, a candidate. A new name is made by its first."""
        wanted = self.body()
        sources = ModelVersion.objects.filter(run__federation=self.membership.federation_id).select_related(
            "run__federation"
        )
        source = get_object_or_404(sources, run=wanted["run"], round_number=wanted["round"])
        made = promote(source, self.actor, name, notes=wanted["notes"], tags=wanted["tags"], address=self.address)
        return Response(RegisteredVersionOut(self.versions().get(pk=made.pk)).data, 201)


class RegisteredVersionDetail(RegistryView):
    """One version: where it came from, its stage and checksum."""

    verbs = {"GET": "get_version", "PATCH": "change_version"}
    acts = {"GET": Act.READ, "PATCH": Act.PROMOTE_MODELS}
    takes = {"PATCH": Description}
    gives = {"GET": Gives(RegisteredVersionOut), "PATCH": Gives(RegisteredVersionOut)}

    def get(self, request: Request, slug: str, name: str, number: int) -> Response:
        return Response(RegisteredVersionOut(self.version()).data)

    def patch(self, request: Request, slug: str, name: str, number: int) -> Response:
        """Other tags, other notes."""
        wanted, version = self.body(), self.locked()
        tags, notes = wanted.get("tags", version.tags), wanted.get("notes", version.notes)
        describe_version(version, self.actor, tags=tags, notes=notes, address=self.address)
        return Response(RegisteredVersionOut(self.version()).data)


class VersionLineage(RegistryView):
    """The checkpoints of other runs that a version goes back to, by forks; a dozen at most."""

    verbs = {"GET": "get_lineage"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(LineageOut)}

    def get(self, request: Request, slug: str, name: str, number: int) -> Response:
        return Response(LineageOut({"ancestors": lineage_of(self.version().source)}).data)


class MoveVersion(RegistryView):
    """To another stage. Production, and out of it, takes the right to release; the version that was there is archived."""

    verbs = {"POST": "move_version"}
    acts = {"POST": Act.PROMOTE_MODELS}
    takes = {"POST": Move}
    gives = {"POST": Gives(RegisteredVersionOut)}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}

    def post(self, request: Request, slug: str, name: str, number: int) -> Response:
        wanted, version = self.body(), self.locked()
        move(version, Stage(wanted["stage"]), self.membership, note=wanted["note"], address=self.address)
        return Response(RegisteredVersionOut(self.version()).data)


class CheckVersion(RegistryView):
    """Have a worker hold the file against its SHA-256; `checked_at` and `check_fault` say how that went."""

    verbs = {"POST": "check_version"}
    acts = {"POST": Act.PROMOTE_MODELS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(RegisteredVersionOut, 202)}

    def post(self, request: Request, slug: str, name: str, number: int) -> Response:
        self.body()
        version = self.version()
        self.must_match(RegisteredVersionOut(version).data)
        ask_for_check(version, self.actor, address=self.address)
        return Response(RegisteredVersionOut(version).data, 202)


class VersionFile(RegistryView):
    """The parameters of a version, as safetensors; whole, or a range of their bytes. The ETag is the SHA-256 of the file."""

    verbs = {"GET": "download_version"}
    acts = {"GET": Act.READ}
    gives = {
        "GET": Gives(media_type="application/octet-stream", description="The file. 206 where a Range was asked for.")
    }

    def get(self, request: Request, slug: str, name: str, number: int) -> HttpResponseBase:
        return version_file(request._request, self.version())  # noqa: SLF001  # Django wants its own request


class VersionManifest(RegistryView):
    """What was written beside the parameters: run, round, app, strategy, SHA-256, tensors."""

    verbs = {"GET": "get_version_manifest"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(ManifestOut, sparse=False)}

    def get(self, request: Request, slug: str, name: str, number: int) -> Response:
        version = self.version()
        content = manifest_of(version.source)
        if content is None:
            raise Http404(f"The manifest of {version} is missing from the model store.")
        return Response(content)
