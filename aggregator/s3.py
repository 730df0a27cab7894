"""Files in a bucket of S3, or of a server that speaks like it. Needs the extra `s3`; the credentials are found as usual for S3: in
`AWS_ACCESS_KEY_ID` and its like, in a profile, or by the machine's role.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from aggregator.files import StoredFile
from aggregator.ports import StoreUnavailable
from protos.wire_forms import Buffer

CONNECT_SECONDS, READ_SECONDS = 10, 60
PART_BYTES = 16 * 1024**2
"""A larger file is sent in parts of this size, and is there when the last of them is."""


class S3Files:
    """An object is there as a whole or not at all: so S3 promises."""

    def __init__(self, bucket: str, prefix: str = "", endpoint_url: str = "") -> None:
        import s3fs  # of no use where models are kept in a folder

        self._root = "/".join(filter(None, (bucket, prefix.strip("/"))))
        self._system: Any = s3fs.S3FileSystem(
            endpoint_url=endpoint_url or None,
            config_kwargs={"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def write(self, key: str, *parts: Buffer) -> None:
        with self._available(may_be_missing=False):
            self._system.pipe_file(self._path(key), b"".join(parts), chunksize=PART_BYTES)

    def read(self, key: str) -> bytes:
        with self._available():
            return bytes(self._system.cat_file(self._path(key)))

    def open(self, key: str) -> BinaryIO:
        with self._available():
            return cast(BinaryIO, self._system.open(self._path(key), "rb", cache_type="readahead"))

    def delete(self, key: str) -> None:
        with self._available():
            self._system.rm_file(self._path(key))

    def listing(self) -> Iterator[StoredFile]:
        with self._available():
            found = self._system.find(self._root, detail=True)
        for path, info in sorted(found.items()):
            yield StoredFile(path.removeprefix(f"{self._root}/"), info["size"], info["LastModified"])

    def place(self, key: str) -> str:
        return f"s3://{self._path(key)}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    @contextmanager
    def _available(self, *, may_be_missing: bool = True) -> Iterator[None]:
        """`may_be_missing`: the file. Else it is the bucket, which somebody may have removed."""
        try:
            yield
        except FileNotFoundError as error:
            if may_be_missing:
                raise
            raise StoreUnavailable(f"The model store s3://{self._root} fails: {error}.") from error
        except Exception as error:  # botocore's and aiohttp's own, and OSError
            raise StoreUnavailable(f"The model store s3://{self._root} fails: {error}.") from error
