"""Images, audio and other files of items and stored completions: in the storage, never in rows.

Where the row of an item has a file, its JSON has the hexadecimal id of the :class:`Attachment`
under the key ``file``.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Q
from django.db.models.signals import post_delete

from ...._ids import parse_public_id, public_id, uuid7
from ...._wire.media import decode_data_uri, is_data_uri
from ....exceptions import InvalidRequest, NotFound
from ..models import Attachment, Completion, Item

__all__ = [
    "FILE_KEYS",
    "Media",
    "address",
    "connect",
    "data_uri",
    "delete_file",
    "find_attachment",
    "inline",
    "load",
    "of_completion",
    "parts_of",
    "stored",
]

logger = logging.getLogger("django_ollama_openai")

#: The end of the address of a file, below a mount, and its maximum length.
_ADDRESS: Final = re.compile(r"(?:^|/)api/chat/files/(file_[0-9a-f]{32})/?$")
MAX_ADDRESS: Final = 2_000

#: The types of parts of items that may be a file, each with the field of its content.
FILE_KEYS: Final = {
    "computer_screenshot": "image_url",
    "image": "url",
    "input_audio": "input_audio",
    "input_file": "file_data",
    "input_image": "image_url",
}
#: The fields of items that have such parts.
_PARTS: Final = ("content", "output", "outputs", "result")

_IMAGES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
_AUDIO: Final = (
    (re.compile(rb"RIFF....WAVE", re.DOTALL), "audio/wav"),
    (re.compile(rb"ID3|\xff[\xe2-\xff]"), "audio/mpeg"),
)
UNKNOWN_TYPE: Final = "application/octet-stream"


@dataclass(slots=True)
class Media:
    """The attachments of rows that are not stored yet, each with its content."""

    found: list[tuple[Attachment, bytes]] = field(default_factory=list)

    def take_image(self, url: str, param: str, **of: Any) -> dict[str, Any]:
        """Return what stands for the image ``url`` in a row: its file for a data URI, else the
        URL. ``of`` is the row that the attachment belongs to.

        Raises:
            InvalidRequest: The data is no PNG, JPEG, GIF or WebP image.
        """
        if not is_data_uri(url):
            return {"image_url": url}
        data = _decoded(url, param)
        kind = _kind(data, _IMAGES)
        if kind is None:
            raise InvalidRequest(
                f"Invalid value for '{param}': the data is no PNG, JPEG, GIF or WebP image.",
                param=param,
            )
        return {"file": self._add(data, kind, of)}

    def take_audio(
        self, data: str, format: str, param: str = "input_audio", **of: Any
    ) -> dict[str, Any]:
        """Return what stands for base64 audio in a row; ``of`` as in :meth:`take_image`.

        Raises:
            InvalidRequest: The data is not base64.
        """
        content = _decoded(f"data:;base64,{data}", param)
        kind = _kind(content, _AUDIO) or UNKNOWN_TYPE
        return {"file": self._add(content, kind, of), "format": format}

    def take_file(self, data: str, param: str, **of: Any) -> dict[str, Any]:
        """Return what stands for a file in a row: ``data`` is a data URI, or base64.

        The beginning of a data URI, which says the type, is kept as ``prefix``.

        Raises:
            InvalidRequest: The data is not base64.
        """
        prefix, _, _ = data.rpartition(",")
        content = _decoded(data if prefix else f"data:;base64,{data}", param)
        kind = _kind(content, _IMAGES) or _kind(content, _AUDIO) or UNKNOWN_TYPE
        if prefix and not prefix.endswith(";base64"):
            prefix += ";base64"
        return {"file": self._add(content, kind, of), "prefix": prefix}

    def _add(self, data: bytes, content_type: str, of: dict[str, Any]) -> str:
        attachment = Attachment(id=uuid7(), content_type=content_type, size=len(data), **of)
        self.found.append((attachment, data))
        return attachment.id.hex


def _decoded(uri: str, param: str) -> bytes:
    try:
        return decode_data_uri(uri)[1]
    except ValueError as error:
        raise InvalidRequest(f"Invalid value for '{param}': {error}.", param=param) from None


def _kind(data: bytes, kinds: Iterable[tuple[re.Pattern[bytes], str]]) -> str | None:
    return next((name for begins, name in kinds if begins.match(data)), None)


@contextmanager
def stored(*media: Media) -> Iterator[None]:
    """Save the files of ``media``; delete them if the block, which inserts the rows, fails.

    The block is a transaction, at whose end the attachments are inserted.
    """
    found = [pair for each in media for pair in each.found]
    saved: list[Attachment] = []
    try:
        for attachment, data in found:
            attachment.file.save(attachment.public_id, ContentFile(data), save=False)
            saved.append(attachment)
        with transaction.atomic():
            yield
            Attachment.objects.bulk_create((attachment for attachment, _ in found), 500)
    except BaseException:
        for attachment in saved:
            try:
                attachment.file.storage.delete(str(attachment.file.name))
            except Exception:
                logger.exception("The file %s was not deleted", attachment.file.name)
        raise


def delete_file(attachment: Attachment) -> None:
    """Delete the file of ``attachment``, whose row is deleted, when the transaction commits."""
    storage, name = attachment.file.storage, str(attachment.file.name)
    # One that fails is logged, and the others follow.
    transaction.on_commit(lambda: storage.delete(name), robust=True)


def connect() -> None:
    """Delete the file of each row that Django deletes."""
    post_delete.connect(_delete_file, sender=Attachment)


def _delete_file(instance: Attachment, **kwargs: Any) -> None:
    delete_file(instance)


def find_attachment(file_id: str, owner: str) -> Attachment:
    """Return the attachment with the public id ``file_id``.

    Raises:
        NotFound: It does not exist, or is not of ``owner``.
    """
    pk = parse_public_id(Attachment.prefix, file_id)
    owned = Q(item__conversation__owner=owner) | Q(completion__owner=owner)
    found = None if pk is None else Attachment.objects.filter(owned, pk=pk).first()
    if found is None:
        raise NotFound(f"File with id '{file_id[:100]}' not found.")
    return found


def address(base: str, digits: str) -> str:
    """Return the URL of a file by its hexadecimal id; ``base`` is the URL of the mount."""
    return f"{base}api/chat/files/{public_id(Attachment.prefix, UUID(digits))}"


def data_uri(attachment: Attachment) -> str:
    """Return the file as a data URI.

    Raises:
        FileNotFoundError: It is not in the storage.
    """
    with attachment.file.open("rb") as file:
        encoded = base64.b64encode(file.read()).decode()
    return f"data:{attachment.content_type};base64,{encoded}"


def inline(content: Any, owner: str, param: str) -> Any:
    """Return ``content``, parts of a message as a client sends them, with the content of files of
    ``owner`` in place of their addresses.

    Raises:
        InvalidRequest: There is no such file.
    """
    if not isinstance(content, list):
        return content
    return [_inline_part(part, owner, f"{param}[{n}]") for n, part in enumerate(content)]


def _inline_part(part: Any, owner: str, param: str) -> Any:
    if not isinstance(part, dict):
        return part
    for key in ("image_url", "imageUrl", "input_audio", "inputAudio", "file_data", "fileData"):
        value = part.get(key)
        inner = "url" if key.startswith("image") else "data"
        url = value.get(inner) if isinstance(value, dict) else value
        match = None
        if isinstance(url, str) and len(url) <= MAX_ADDRESS:
            match = _ADDRESS.search(url)
        if match is None:
            continue
        try:
            found = data_uri(find_attachment(match[1], owner))
        except (NotFound, FileNotFoundError):
            raise InvalidRequest(
                f"Invalid value for '{param}.{key}': there is no such file.",
                param=f"{param}.{key}",
            ) from None
        if inner == "data" and isinstance(value, dict):
            found = found.partition(",")[2]
        return {**part, key: {**value, inner: found} if isinstance(value, dict) else found}
    return part


def parts_of(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the parts of an item that are files, with the hexadecimal id as ``file``."""
    for name in _PARTS:
        value = data.get(name)
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict) or part.get("type") not in FILE_KEYS:
                continue
            if isinstance(part.get("file"), str):
                yield part


def load(items: Iterable[Item]) -> dict[str, Attachment]:
    """Return the attachments of ``items`` by their hexadecimal ids."""
    wanted = [item.pk for item in items if any(parts_of(item.data))]
    if not wanted:
        return {}
    return {row.id.hex: row for row in Attachment.objects.filter(item__in=wanted)}


def of_completion(completion: Completion) -> dict[str, Attachment]:
    """Return the attachments of a stored completion by their hexadecimal ids."""
    return {row.id.hex: row for row in Attachment.objects.filter(completion=completion)}
