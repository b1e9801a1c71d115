"""One export from its first row to its manifest: in steps of two halves, so that reading and shaping may be done by different threads.

`Making.read` reads, in the thread that may; `Making.shape` makes bytes of what was read, in any. Whoever makes an export calls
one after the other until `read` gives None, then `finish`, then `manifest`.
"""

import threading
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from io import RawIOBase
from typing import Any

from audit_api.export.formats import FORMATS, open_writer
from audit_api.export.manifest import FileSum, manifest_of
from audit_api.export.walk import Row, Walk

__all__ = ["MANIFEST", "Archive", "Making"]

MANIFEST = "manifest.json"


class Making:
    """The file of one export, as bytes that come by and by.

    Args:
        walk: its rows.
        form: name of one of `audit_api.export.formats.FORMATS`.
        name: the file's name, for the manifest; by default ``events.`` and the format's ending.

    Raises:
        FormatUnavailable: see `open_writer`.
    """

    def __init__(self, walk: Walk, form: str, *, name: str = "") -> None:
        self.walk = walk
        self.form = form
        self.name = name or f"events.{FORMATS[form].ending}"
        self._writer = open_writer(form)
        self._sum = sha256()
        self.bytes = 0

    def read(self) -> list[Row] | None:
        """See `Walk.step`."""
        return self.walk.step()

    def shape(self, rows: Sequence[Row]) -> bytes:
        """The file's next bytes; may be none yet."""
        return self._counted(self._writer.write(rows))

    def finish(self) -> bytes:
        """The file's last bytes."""
        return self._counted(self._writer.finish())

    def manifest(self) -> bytes:
        """What stands beside the file, once it is finished."""
        file = FileSum(name=self.name, bytes=self.bytes, sha256=self._sum.hexdigest())
        return manifest_of(self.walk, self._writer, form=self.form, files=[file])

    def _counted(self, data: bytes) -> bytes:
        self._sum.update(data)
        self.bytes += len(data)
        return data


class _Pipe(RawIOBase):
    """Where an archive is written to that goes on to somewhere else: it cannot seek."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Keep it until it is taken."""
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        """What was written since the last time."""
        taken, self._parts = b"".join(self._parts), []
        return taken


class Archive:
    """An export as a zip of its file and its manifest, in one pass.

    Why a zip: the manifest, which says whether the export is complete, is known last and must not be parted from the file; and an archive
    that was cut off on its way has no directory, so that nobody takes the half for the whole.

    Args:
        making: of which nothing has been read yet.
    """

    def __init__(self, making: Making) -> None:
        self.making = making
        self._pipe = _Pipe()
        self._turn = threading.Lock()
        self._abandoned = False
        self._zip = zipfile.ZipFile(self._pipe, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        # Parquet is compressed already
        self._member = self._zip.open(_info(making.name, stored=making.form == "parquet"), "w", force_zip64=True)

    def read(self) -> list[Row] | None:
        """See `Making.read`."""
        return self.making.read()

    def shape(self, rows: Sequence[Row]) -> bytes:
        """The archive's next bytes; may be none yet."""
        with self._turn:
            if not self._abandoned:
                self._member.write(self.making.shape(rows))
            return self._pipe.take()

    def finish(self) -> bytes:
        """The archive's last bytes, manifest and all."""
        with self._turn:
            if not self._abandoned:
                self._member.write(self.making.finish())
                self._member.close()
                self._zip.writestr(_info(MANIFEST, stored=False), self.making.manifest())
                self._zip.close()
            return self._pipe.take()

    def abandon(self) -> None:
        """Let go of it, finished or not; from any thread: another may still shape rows that nobody waits for any more."""
        with self._turn:
            self._abandoned = True
            self._member.close()
            self._zip.close()
            self._pipe.take()


def _info(name: str, *, stored: bool) -> zipfile.ZipInfo:
    """A member without a time of making: the same export at the same checkpoint is the same file."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
