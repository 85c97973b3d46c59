"""Pictures and audio of items: in the storage, never in rows.

In ``Item.data`` a medium is the hexadecimal id of its :class:`Attachment`, under the key ``file``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.core.files.base import ContentFile
from django.db import transaction
from django.db.models import Q

from ...._ids import parse_public_id, public_id, uuid7
from ...._wire.media import decode_base64, decode_data_uri
from ....exceptions import InvalidRequest, NotFound
from ..models import Attachment, Completion, Item

__all__ = [
    "Media",
    "address",
    "data_uri",
    "delete_file",
    "find_attachment",
    "inline",
    "load",
    "of_completion",
    "stored",
]

#: The end of the address of a file, below a mount.
_ADDRESS: Final = re.compile(r"(?:^|/)api/chat/files/(file_[0-9a-f]{32})/?$")
_DATA_URI: Final = re.compile(r"data:([^,]*?)(;base64)?,", re.IGNORECASE)
_AUDIO_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}

_SIGNATURES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)


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
        match = _DATA_URI.match(url)
        if match is None:
            return {"image_url": url}
        _, data = decode_data_uri(url)
        kind = next((name for begins, name in _SIGNATURES if begins.match(data)), None)
        if kind is None:
            raise InvalidRequest(
                f"Invalid value for '{param}': the data is no PNG, JPEG, GIF or WebP image.",
                param=param,
            )
        return {"file": self._add(data, kind, of)}

    def take_audio(self, data: str, format: str, **of: Any) -> dict[str, Any]:
        """Return what stands for base64 audio in a row; ``of`` as in :meth:`take_image`."""
        content = decode_base64(data)
        return {"file": self._add(content, _AUDIO_TYPES[format], of), "format": format}

    def _add(self, data: bytes, content_type: str, of: dict[str, Any]) -> str:
        attachment = Attachment(id=uuid7(), content_type=content_type, size=len(data), **of)
        self.found.append((attachment, data))
        return attachment.id.hex


@contextmanager
def stored(*media: Media) -> Iterator[None]:
    """Save the files of ``media``; delete them if the block, which inserts the rows, fails.

    At the end of the block the attachments are inserted.
    """
    found = [pair for each in media for pair in each.found]
    saved: list[Attachment] = []
    try:
        for attachment, data in found:
            attachment.file.save(attachment.public_id, ContentFile(data), save=False)
            saved.append(attachment)
        with transaction.atomic():
            yield
            Attachment.objects.bulk_create(attachment for attachment, _ in found)
    except BaseException:
        for attachment in saved:
            attachment.file.storage.delete(str(attachment.file.name))
        raise


def delete_file(attachment: Attachment) -> None:
    """Delete the file of ``attachment``, whose row is deleted, when the transaction commits."""
    storage, name = attachment.file.storage, str(attachment.file.name)
    transaction.on_commit(lambda: storage.delete(name))


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
    """Return the file as a data URI."""
    with attachment.file.open("rb") as file:
        encoded = base64.b64encode(file.read()).decode()
    return f"data:{attachment.content_type};base64,{encoded}"


def inline(content: Any, owner: str, param: str) -> Any:
    """Return ``content``, parts of a message as a client sends them, with data URIs in place of
    the addresses of files of ``owner``.

    Raises:
        InvalidRequest: There is no such file.
    """
    if not isinstance(content, list):
        return content
    return [_inline_part(part, owner, f"{param}[{n}]") for n, part in enumerate(content)]


def _inline_part(part: Any, owner: str, param: str) -> Any:
    if not isinstance(part, dict):
        return part
    for key in ("image_url", "imageUrl"):
        image = part.get(key)
        url = image.get("url") if isinstance(image, dict) else image
        match = _ADDRESS.search(url) if isinstance(url, str) else None
        if match is None:
            continue
        try:
            found = data_uri(find_attachment(match[1], owner))
        except (NotFound, FileNotFoundError):
            raise InvalidRequest(
                f"Invalid value for '{param}': there is no such file.", param=param
            ) from None
        return {**part, key: {**image, "url": found} if isinstance(image, dict) else found}
    return part


def load(items: Iterable[Item]) -> dict[str, Attachment]:
    """Return the attachments of ``items`` by their hexadecimal ids."""
    wanted = [item.pk for item in items if _has_file(item)]
    if not wanted:
        return {}
    return {row.id.hex: row for row in Attachment.objects.filter(item__in=wanted)}


def of_completion(completion: Completion) -> dict[str, Attachment]:
    """Return the attachments of a stored completion by their hexadecimal ids."""
    return {row.id.hex: row for row in Attachment.objects.filter(completion=completion)}


def _has_file(item: Item) -> bool:
    parts = item.data.get("content", item.data.get("output"))
    return isinstance(parts, list) and any("file" in part for part in parts)
