"""The page of usage: spend, tokens, requests, errors and latency over time, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.utils.formats import date_format, number_format
from django.utils.safestring import SafeString
from django.utils.timezone import now
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..._admin import ModelAdmin
from ...access.models import Workspace
from .._recording.record import billing_zone
from .._reports.csv import CSV, rows_as_csv
from ..models import Dimension
from .charts import Bar, bar_chart, shown
from .figures import Row, by_day, top, workspaces

__all__ = ["ReportAdmin"]

VIEW: Final = "ollama_openai_usage.view_usagerecord"
#: The most days of a page.
MOST_DAYS: Final = 366
DAYS: Final = "days"


class RangeForm(forms.Form):
    """The days and the workspace of the page."""

    start = forms.DateField(label=_("From"), required=False)
    end = forms.DateField(label=_("to"), required=False)
    workspace = forms.ModelChoiceField(
        Workspace.objects.none(),
        label=_("Workspace"),
        required=False,
        empty_label=_("All"),
        to_field_name="slug",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["workspace"].queryset = workspaces()  # type: ignore[attr-defined]  # of this field
        for name in ("start", "end"):
            self.fields[name].widget = forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")

    def clean(self) -> dict[str, Any]:
        found = super().clean() or {}
        today = now().astimezone(billing_zone()).date()
        start = found.get("start") or today.replace(day=1)
        month_end = (start.replace(day=1) + timedelta(days=32)).replace(day=1) - timedelta(days=1)
        end = found.get("end") or month_end
        if end < start:
            raise forms.ValidationError(gettext("The last day has to follow the first."))
        if (end - start).days >= MOST_DAYS:
            raise forms.ValidationError(
                gettext("Choose up to %(count)d days.") % {"count": MOST_DAYS}
            )
        return {**found, "start": start, "end": end}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and its table: the head, and the cells of each row."""

    id: str
    title: str
    svg: SafeString
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class TopList:
    """A list of those who used the most."""

    name: str
    title: str
    rows: Sequence[Sequence[str]]
    left_out: int


class ReportAdmin(ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """The page, in place of a list of rows."""

    class Media:
        css: ClassVar = {"all": ["ollama_openai_usage/admin.css"]}

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(VIEW)

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = RangeForm(request.GET)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": gettext("Usage"),
            "opts": self.opts,
            "media": self.media,
            "form": form,
        }
        if form.is_valid():
            chosen = form.cleaned_data
            first, last, workspace = chosen["start"], chosen["end"], chosen["workspace"]
            wanted = request.GET.get("csv")
            if wanted:
                return _csv(wanted, first, last, workspace)
            context |= _figures(first, last, workspace)
            parameters = request.GET.copy()
            parameters.pop("csv", None)
            context["query"] = parameters.urlencode()
            context["form"] = RangeForm(initial=_initial(chosen))
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/ollama_openai_usage/report.html", context)

    def get_urls(self) -> list[Any]:
        # Only the page itself: there are no rows to look at.
        return super().get_urls()[:1]


def _initial(chosen: dict[str, Any]) -> dict[str, Any]:
    workspace = chosen["workspace"]
    return {**chosen, "workspace": None if workspace is None else workspace.slug}


def _figures(first: date, last: date, workspace: Workspace | None) -> dict[str, Any]:
    days = by_day(first, last, workspace)
    total = Row("")
    for day in days:
        for name, value in day.figures.items():
            total.figures[name] += value
        for currency, cost in day.costs.items():
            total.costs[currency] = total.costs.get(currency, Decimal(0)) + cost
    lists = [] if workspace is not None else list(_top_lists(first, last))
    return {
        "first": first,
        "last": last,
        "workspace": workspace,
        "totals": [
            (gettext("Spend"), _money(total.costs)),
            (gettext("Requests"), shown(total.figures["requests"])),
            (gettext("Tokens"), shown(total.tokens)),
            (gettext("Errors"), shown(total.figures["errors"])),
            (gettext("Mean time of an answer"), _seconds(total.latency)),
        ],
        "unpriced": total.figures["unpriced_requests"],
        "is_empty": not total.figures["requests"],
        "charts": list(_charts(days)),
        "lists": lists,
        "head": _head(),
    }


def _charts(days: Sequence[Row]) -> Iterator[Chart]:
    currencies = sorted({currency for day in days for currency in day.costs})
    for currency in currencies:
        title = gettext("Spend per day, %(currency)s") % {"currency": currency}
        yield _chart(f"spend-{currency}", title, days, partial(_spend, currency))
    figures: tuple[tuple[str, str, Callable[[Row], Decimal | None]], ...] = (
        ("tokens", gettext("Tokens per day"), lambda day: Decimal(day.tokens)),
        ("requests", gettext("Requests per day"), lambda day: Decimal(day.figures["requests"])),
        ("errors", gettext("Errors per day"), lambda day: Decimal(day.figures["errors"])),
        ("latency", gettext("Mean time of an answer, in seconds"), lambda day: day.latency),
        ("first", gettext("Mean time to the first token, in seconds"), lambda day: day.first_token),
    )
    for id, title, value in figures:
        yield _chart(id, title, days, value)


def _spend(currency: str, day: Row) -> Decimal | None:
    return day.costs.get(currency)


def _chart(
    id: str, title: str, days: Sequence[Row], value: Callable[[Row], Decimal | None]
) -> Chart:
    values = [(day.name, value(day)) for day in days]
    bars = [Bar(number, _short(day), f"{_long(day)}: {shown(number)}") for day, number in values]
    return Chart(
        id,
        title,
        bar_chart(bars, id=f"oou-{id}", title=title),
        (gettext("Day"), title),
        [(_long(day), shown(number)) for day, number in values],
    )


def _short(day: date) -> str:
    return date_format(day, "MONTH_DAY_FORMAT") if day.day == 1 else str(day.day)


def _long(day: date) -> str:
    return date_format(day, "DATE_FORMAT")


_LISTS: Final = (
    (Dimension.WORKSPACE, "workspaces", _("Workspaces")),
    (Dimension.USER, "users", _("Users")),
    (Dimension.KEY, "keys", _("API keys")),
    (Dimension.MODEL, "models", _("Models")),
)


def _top_lists(first: date, last: date) -> Iterator[TopList]:
    for dimension, name, title in _LISTS:
        rows, count = top(dimension, first, last)
        yield TopList(name, str(title), [_cells(row) for row in rows], count - len(rows))


def _head() -> list[str]:
    return [
        gettext("Name"),
        gettext("Spend"),
        gettext("Requests"),
        gettext("Tokens"),
        gettext("Errors"),
        gettext("Mean time"),
    ]


def _cells(row: Row) -> list[str]:
    return [
        str(row.name),
        _money(row.costs),
        shown(row.figures["requests"]),
        shown(row.tokens),
        shown(row.figures["errors"]),
        _seconds(row.latency),
    ]


def _money(costs: dict[str, Decimal]) -> str:
    """Return amounts, each in its currency; a dash for no price, which is not zero."""
    amounts = [f"{_rounded(cost)} {currency}" for currency, cost in sorted(costs.items())]
    return ", ".join(amounts) or "–"


def _rounded(cost: Decimal) -> str:
    """Return ``cost`` with two decimal places, or two digits if it is less than that. CSV has all
    of them."""
    places = 2 if not cost or cost >= Decimal("0.01") else 1 - cost.adjusted()
    return number_format(round(cost, places), decimal_pos=places, force_grouping=True)


def _seconds(value: Decimal | None) -> str:
    return "–" if value is None else gettext("%(seconds)s s") % {"seconds": shown(value)}


_COUNTED: Final = (
    "requests",
    "errors",
    "cancelled",
    "unpriced_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
)


def _csv(name: str, first: date, last: date, workspace: Workspace | None) -> HttpResponseBase:
    """Return the figures of the days, or a whole list, as CSV."""
    lists = {key: dimension for dimension, key, _title in _LISTS}
    if name in lists and workspace is None:
        rows, _count = top(lists[name], first, last, None)
    else:
        name, rows = DAYS, by_day(first, last, workspace)
    head = ["name", "currency", "cost", *_COUNTED, "seconds", "first_token_seconds"]
    response = StreamingHttpResponse(rows_as_csv(head, _csv_rows(rows)), content_type=CSV)
    response.headers["Content-Disposition"] = f'attachment; filename="usage-{name}.csv"'
    return response


def _csv_rows(rows: Sequence[Row]) -> Iterator[list[Any]]:
    for row in rows:
        figures = [row.figures[name] for name in _COUNTED]
        for number, (currency, cost) in enumerate(sorted(row.costs.items()) or [("", None)]):
            # The figures stand once, with the first currency.
            counted = [*figures, row.latency, row.first_token] if not number else [None] * 9
            amount = None if cost is None else f"{cost.normalize():f}"
            yield [str(row.name), currency, amount, *counted]
