"""Show limits and their current use in words."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .._limits.resolve import AppliedLimit
from .._limits.usage import Use, account_of, current_uses
from ..models import Limit

__all__ = ["ShowsUse", "UseChangeList", "attach_uses", "describe_use", "limits_with_uses"]


def attach_uses(limits: Iterable[Limit]) -> None:
    """Read the current use of all ``limits`` at once, and attach it to each as ``current_use``."""
    accounts = [(limit, account_of(limit)) for limit in limits]
    uses = iter(current_uses([account for _limit, account in accounts if account is not None]))
    for limit, account in accounts:
        limit.current_use = "" if account is None else describe_use(next(uses))  # type: ignore[attr-defined]  # for ShowsUse


def limits_with_uses(limits: list[AppliedLimit]) -> list[tuple[Limit, str]]:
    """Return the limits and their current use, for a table."""
    return [
        (each.limit, describe_use(use))
        for each, use in zip(limits, current_uses(limits), strict=True)
    ]


def describe_use(use: Use | None) -> str:
    """Return ``use`` as HTML: a bar and a text, or "unknown" for ``None``."""
    if use is None:
        return gettext("unknown: the store of limits cannot be reached")
    used, amount = _number(use.used), _number(use.amount)
    return format_html(
        '<span class="ooa-use"><meter min="0" max="{}" high="{}" optimum="0" value="{}"></meter> '
        "<span>{}</span></span>",
        *map(str, (use.amount or 1, float(use.amount) * 0.8, use.used)),
        gettext("%(used)s of %(amount)s") % {"used": used, "amount": amount},
    )


def _number(number: int | Decimal) -> str:
    if isinstance(number, Decimal):
        number = Decimal(f"{number.normalize():f}")
    return number_format(number, use_l10n=True, force_grouping=True)


class ShowsUse:
    """Add the column of current use to an admin of limits."""

    @admin.display(description=_("current use"))
    def use(self, limit: Limit) -> Any:
        return getattr(limit, "current_use", "")


class UseChangeList(ChangeList):
    """A list of limits that reads the current use of all limits of a page at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        attach_uses(self.result_list)
