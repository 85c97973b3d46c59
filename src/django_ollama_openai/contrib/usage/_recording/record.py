"""Records of requests that have ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5
from zoneinfo import ZoneInfo

from django.utils.timezone import get_default_timezone

from ...._ids import parse_public_id
from ....auth import Caller
from ....exceptions import ClientTimeout
from ....policies import Admission, Outcome
from .._prices import PriceBook, cost
from ..conf import usage_settings
from ..models import MAX_MODEL, MAX_NAME, Price, Source, Status, UsageRecord

__all__ = [
    "Draft",
    "User",
    "billing_zone",
    "draft_of",
    "finished",
    "month_of",
    "series_of",
    "without",
]

CANCELLED: Final = "cancelled"
#: The most that a column of a number has.
MAX_NUMBER: Final = 2**31 - 1
MAX_TAG: Final = 512


@dataclass(frozen=True, slots=True)
class User:
    """The sender of a request: its workspace, user and key, and their names. ``static_key`` is the
    id of a key in the settings."""

    workspace: UUID | None = None
    workspace_name: str = ""
    user: Any = None
    username: str = ""
    key: UUID | None = None
    key_name: str = ""
    static_key: str = ""

    @classmethod
    def of(cls, caller: Caller) -> User:
        """Return the sender that ``caller`` is."""
        workspace, user, key_id = caller.workspace, caller.user, caller.key_id
        key = None if key_id is None else parse_public_id("key", key_id)
        static = "" if key_id is None or key is not None else key_id[:MAX_NAME]
        return cls(
            workspace=None if workspace is None else parse_public_id("ws", workspace.id),
            workspace_name="" if workspace is None else workspace.name[:MAX_NAME],
            user=None if user is None else user.pk,
            username="" if user is None else str(user.get_username())[:MAX_NAME],
            key=key,
            key_name=(caller.key_name or static)[:MAX_NAME],
            static_key=static,
        )


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a request when it has ended, without any text: all of a record but its
    price. Times are in milliseconds."""

    id: UUID
    request_id: str
    started_at: datetime
    user: User
    endpoint: str
    model: str
    answered_by: str
    backend: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    source: Source
    status: Status
    error: str
    duration: int
    queued: int
    time_to_first_token: int | None
    tags: dict[str, str] | None


def draft_of(
    id: UUID, started_at: datetime, admission: Admission[Any], outcome: Outcome
) -> Draft | None:
    """Return the draft of the record of a request; ``None`` if it reached no engine."""
    if outcome.answered_by is None:
        return None
    usage, timings, error = outcome.usage, outcome.timings, outcome.error
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached, reasoning = usage.cached_tokens, usage.reasoning_tokens
    code = ""
    if outcome.finish_reason == CANCELLED or isinstance(error, ClientTimeout):
        status = Status.CANCELLED
    elif error is not None:
        status, code = Status.ERROR, (error.code or error.type)[:64]
        # The client has no answer to pay for.
        prompt = cached = completion = reasoning = 0
    else:
        status = Status.OK
    if not usage.estimated:
        source = Source.REPORTED
    else:
        source = Source.COUNTED if status == Status.OK else Source.ESTIMATED
        if status != Status.ERROR:
            # An engine reports the tokens of the prompt at its end only.
            prompt = prompt or admission.prompt_tokens
    first = timings.time_to_first_token
    return Draft(
        id=id,
        request_id=_storable(admission.request_id, 255),
        started_at=started_at,
        user=User.of(admission.caller),
        endpoint=admission.endpoint,
        model=_storable(admission.engine_route.name, MAX_MODEL),
        answered_by=_storable(outcome.answered_by, MAX_MODEL),
        backend=_storable(outcome.backend or "", 100),
        prompt_tokens=min(prompt, MAX_NUMBER),
        cached_tokens=min(cached, prompt, MAX_NUMBER),
        completion_tokens=min(completion, MAX_NUMBER),
        reasoning_tokens=min(reasoning, MAX_NUMBER),
        source=source,
        status=status,
        error=code,
        duration=_milliseconds(timings.total),
        queued=_milliseconds(timings.queued),
        time_to_first_token=None if first is None else _milliseconds(first),
        tags=_tags(admission.body),
    )


def _milliseconds(seconds: float) -> int:
    return min(round(1000 * seconds), MAX_NUMBER)


def _storable(text: str, length: int) -> str:
    """Return up to ``length`` characters of ``text``, without NUL: PostgreSQL cannot store it."""
    return text[:length].replace("\0", "\ufffd")


def _tags(body: Any) -> dict[str, str] | None:
    """Return the metadata of a request under the keys in ``TAGS``."""
    wanted = usage_settings().TAGS
    metadata = getattr(body, "metadata", None) if wanted else None
    if not isinstance(metadata, dict):
        further = getattr(body, "model_extra", None) if wanted else None
        metadata = (further or {}).get("metadata")
    if not isinstance(metadata, dict):
        return None
    found = {key: _storable(str(metadata[key]), MAX_TAG) for key in wanted if key in metadata}
    return found or None


def finished(drafts: Iterable[Draft], book: PriceBook) -> list[UsageRecord]:
    """Return the records of ``drafts``, not inserted yet, with the prices of ``book`` that were
    valid when the requests started."""
    zone = billing_zone()
    return [_finished(draft, book, zone) for draft in drafts]


def _finished(draft: Draft, book: PriceBook, zone: tzinfo) -> UsageRecord:
    user = draft.user
    price = book.price_of(draft.answered_by, draft.started_at)
    record = UsageRecord(
        id=draft.id,
        request_id=draft.request_id,
        started_at=draft.started_at,
        workspace_id=user.workspace,
        workspace_name=user.workspace_name,
        user_id=user.user,
        username=user.username,
        key_id=user.key,
        key_name=user.key_name,
        static_key=user.static_key,
        endpoint=draft.endpoint,
        model=draft.model,
        answered_by=draft.answered_by,
        backend=draft.backend,
        prompt_tokens=draft.prompt_tokens,
        cached_tokens=draft.cached_tokens,
        completion_tokens=draft.completion_tokens,
        reasoning_tokens=draft.reasoning_tokens,
        source=draft.source,
        status=draft.status,
        error=draft.error,
        duration=draft.duration,
        queued=draft.queued,
        time_to_first_token=draft.time_to_first_token,
        tags=draft.tags,
        price=price,
        currency="" if price is None else price.currency,
        cost=None if price is None else _cost(draft, price),
        month=month_of(draft.started_at, zone),
    )
    record.series = series_of(record)
    return record


def _cost(draft: Draft, price: Price) -> Any:
    if draft.status == Status.ERROR:
        return 0
    return cost(
        price,
        prompt_tokens=draft.prompt_tokens,
        cached_tokens=draft.cached_tokens,
        completion_tokens=draft.completion_tokens,
        engine_time=max(0, draft.duration - draft.queued),
    )


def series_of(record: UsageRecord) -> UUID:
    """Return the id of the records that are added up with ``record``."""
    return _uuid_of(
        record.workspace_id,
        record.user_id,
        record.key_id,
        record.static_key,
        record.endpoint,
        record.answered_by,
        record.price_id,
        record.month,
    )


@lru_cache(maxsize=20_000)
def _uuid_of(*facts: object) -> UUID:
    return uuid5(NAMESPACE_OID, repr(tuple(map(str, facts))))


def billing_zone() -> tzinfo:
    """Return the time zone of billing months, and of the days in the admin."""
    name = usage_settings().TIME_ZONE
    return get_default_timezone() if name is None else ZoneInfo(name)


def month_of(moment: datetime, zone: tzinfo) -> date:
    """Return the first day of the month that ``moment`` is in."""
    return moment.astimezone(zone).date().replace(day=1)


def without(draft: Draft, lost: set[str]) -> Draft:
    """Return ``draft`` without those of its ``workspace``, ``user`` and ``key`` that are ``lost``,
    since their rows were deleted meanwhile; their names stay."""
    gone: Any = dict.fromkeys(lost)
    return replace(draft, user=replace(draft.user, **gone))
