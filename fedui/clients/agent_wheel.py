"""The agent as a wheel, made of the files of this installation: what a site installs is what this server was tested with."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from pathlib import Path

NAME = "fedui-agent"
PACKAGES = ("client_agent", "protos")
EXTRAS = ("agent", "torch", "trees")
"""Of this distribution, those that are for sites."""
ENTRY_POINTS = ("console_scripts", "fedui.apps")
_EPOCH = (2026, 1, 1, 0, 0, 0)
"""Of all files in it: the same files make the same bytes, in every process."""


@dataclass(frozen=True, slots=True)
class Wheel:
    filename: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@cache
def agent_wheel() -> Wheel:
    """See https://packaging.python.org/en/latest/specifications/binary-distribution-format/."""
    source = distribution("fedui")
    info = f"{NAME.replace('-', '_')}-{source.version}.dist-info"
    files = dict(_sources())
    files[f"{info}/METADATA"] = _metadata(source)
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: fedui\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = _entry_points(source)
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return Wheel(f"{info.removesuffix('.dist-info')}-py3-none-any.whl", buffer.getvalue())


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec and spec.origin
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                yield f"{package}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _metadata(source: Distribution) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {source.version}"]
    lines += ["Summary: The agent of a FedUI server.", f"Requires-Python: {source.metadata['Requires-Python']}"]
    lines += [f"Provides-Extra: {extra}" for extra in EXTRAS]
    lines += [f"Requires-Dist: {requirement}" for requirement in source.requires or () if _is_the_agents(requirement)]
    return ("\n".join(lines) + "\n").encode()


def _is_the_agents(requirement: str) -> bool:
    return "extra ==" not in requirement or any(f'extra == "{extra}"' in requirement for extra in EXTRAS)


def _entry_points(source: Distribution) -> bytes:
    lines = []
    for group in ENTRY_POINTS:
        lines.append(f"[{group}]")
        found = source.entry_points.select(group=group)
        lines += [f"{point.name} = {point.value}" for point in found if point.module.startswith("client_agent.")]
    return ("\n".join(lines) + "\n").encode()


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    return ("\n".join([*lines, f"{own},,"]) + "\n").encode()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
