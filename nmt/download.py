"""Downloads that continue where they were interrupted, and are what they should be."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfkfac.errors import InputError

USER_AGENT = "nmt-data"
ATTEMPTS = 3  # before the user has to ask again
TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Download:
    """A file on a server.

    Args:
        url: http or https.
        checksum: its hash function's name, a colon and hexadecimal digits; "": not known.
        of_content: the checksum is that of the content of a gzip file, which remains the same if
            it is compressed anew.
    """

    url: str
    checksum: str = ""
    of_content: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]


def fetch(
    download: Download,
    directory: Path,
    verify: bool = True,
    progress: Callable[[int, int | None], None] = lambda received, total: None,
) -> Path:
    """Downloads a file, unless it is there.

    What has been received when the connection or the process ends stays in a file of its own, and
    the next call asks the server for the rest, provided that the file there is still the same.

    Args:
        download: what to fetch.
        directory: where to; it is created.
        verify: compare checksums.
        progress: called with the bytes received so far, and of how many, if the server tells.

    Returns:
        The path of the file.

    Raises:
        InputError: if the server cannot be reached or does not have the file, the connection
            breaks again and again, or the checksum is another.
    """
    path = directory / download.name
    if path.exists():
        if verify:
            _verify(download, path, f"remove {path} and run again")
        return path
    directory.mkdir(parents=True, exist_ok=True)
    part = _Part(directory, download.name)
    for attempt in range(ATTEMPTS):
        try:
            part.receive(download.url, progress)
            break
        except urllib.error.HTTPError as error:
            raise InputError(f"{download.url}: {error.code} {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1 or part.size == 0:
                raise InputError(_broken(download.url, path, error, part.size)) from error
    if verify:
        try:
            _verify(download, part.path, "run again, or see --ignore-checksum")
        except InputError:
            part.remove()
            raise
    part.path.replace(path)
    part.remove()
    return path


class _Part:
    """The beginning of a file, and the server's name for the version that it belongs to."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f".{name}.part"
        self._version_path = directory / f".{name}.part.json"

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)

    def receive(self, url: str, progress: Callable[[int, int | None], None]) -> None:
        """Receives what is missing, or everything if the server's file is another by now."""
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
        version = self._version()
        if self.size and version:
            request.add_header("Range", f"bytes={self.size}-")
            request.add_header("If-Range", version)
        else:
            self.remove()
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            # Nothing is missing, or the file has become shorter: start again.
            self.remove()
            return self.receive(url, progress)
        with response:
            continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
            received = self.size if continues else 0
            length = response.headers.get("Content-Length")
            total = received + int(length) if length else None
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            with self.path.open("ab" if continues else "wb") as file:
                self._version_path.write_text(json.dumps(version), encoding="utf-8")
                while block := response.read(_BLOCK):
                    file.write(block)
                    received += len(block)
                    progress(received, total)
        if total is not None and received < total:
            raise http.client.IncompleteRead(b"", total - received)

    def _version(self) -> str | None:
        """What the server called the version, if "If-Range" can be asked for it."""
        try:
            version = json.loads(self._version_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        weak = isinstance(version, str) and version.startswith("W/")
        return version if isinstance(version, str) and not weak else None


def checksum(path: Path, function: str = "sha256", of_content: bool = False) -> str:
    """The file's checksum, or that of the content of a gzip file, in hexadecimal digits."""
    digest = hashlib.new(function)
    with gzip.open(path) if of_content else path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _verify(download: Download, path: Path, advice: str) -> None:
    if not download.checksum:
        return
    function, expected = download.checksum.split(":")
    try:
        found = checksum(path, function, download.of_content)
    except (OSError, EOFError, zlib.error) as error:
        found = str(error)
    if found != expected:
        raise InputError(
            f"{download.url}: {function} checksum is {found}, not {expected}; {advice}"
        )


def _broken(url: str, path: Path, error: Exception, received: int) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    if received:
        return f"{url}: interrupted after {received:,} bytes ({reason}); run again to continue"
    return (
        f"{url}: cannot be reached ({reason}); without a network, fetch it elsewhere, put it at "
        f"{path} and run again"
    )
