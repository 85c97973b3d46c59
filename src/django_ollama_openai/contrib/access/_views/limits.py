"""``api/limits/``: the limits that apply to the caller, and what remains of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import BaseModel

from ....auth import ANY_SCOPE
from ....endpoints import Admission, Endpoint
from ....exceptions import Unavailable
from .._limits.ledger import Figures, Rule
from .._limits.resolve import applied_limits, subjects_of
from .._limits.usage import shown
from ..stores import Claim, StoreDown
from ..stores._base import now
from ..stores._configured import limit_store

__all__ = ["limits"]

TAGS: Final = {"Limits": "What the caller may use, and what remains"}


class LimitAnswer(BaseModel):
    """A limit, and what remains of it. Amounts of ``cost`` are decimal numbers in strings."""

    id: str
    object: Literal["limit"] = "limit"
    target: str
    unit: str
    amount: int | str
    per: str | None
    model: str
    used: int | str
    remaining: int | str
    resets_at: datetime | None


class LimitList(BaseModel):
    """All limits that apply to the caller."""

    object: Literal["list"] = "list"
    data: list[LimitAnswer]


limits = Endpoint(tags=TAGS)


@limits.get(scope=ANY_SCOPE, response=LimitList)
def list_limits(admission: Admission[None]) -> dict[str, Any]:
    """List the limits that apply to the caller, and what remains of them."""
    applied = applied_limits(subjects_of(admission.caller), None)
    moment = now()
    claims = [Claim(each.account, each.rule(moment), 0, is_leased=True) for each in applied]
    try:
        figures = limit_store().read(claims) if claims else []
    except StoreDown as error:
        raise Unavailable("Limits cannot be read at the moment. Try again later.") from error
    data = [
        LimitAnswer(
            id=each.limit.public_id,
            target=each.limit.target,
            unit=each.limit.unit,
            amount=shown(each, claim.rule.amount),
            per=each.limit.per or None,
            model=each.limit.model,
            used=shown(each, found.used),
            remaining=shown(each, found.remaining),
            resets_at=_resets_at(claim.rule, found, moment),
        )
        for each, claim, found in zip(applied, claims, figures, strict=True)
    ]
    return LimitList(data=data).model_dump(mode="json")


def _resets_at(rule: Rule, figures: Figures, moment: int) -> datetime | None:
    """Return when the whole amount is available again; ``None`` for concurrent requests."""
    match rule.kind:
        case "calendar":
            at = rule.begin + rule.length
        case "bucket":
            at = moment + figures.reset
        case "concurrent":
            return None
    return datetime.fromtimestamp(at / 10**6, UTC)
