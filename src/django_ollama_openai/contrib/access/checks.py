"""System checks of the app.

======================  ==========================================================
``ollama_openai.E011``  ``ACCESS["LIMIT_STORE"]`` cannot be imported or created
``ollama_openai.E012``  ``USE_TZ`` is off
``ollama_openai.W007``  ``MemoryStore`` is used without ``DEBUG``
``ollama_openai.W008``  a limit on cost has no effect (``check --database`` only)
``ollama_openai.W009``  a limit is on a model that is not allowed (``check --database`` only)
======================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from ... import _conf
from .models import Limit, Unit
from .pricing import pricer
from .stores import MemoryStore
from .stores._configured import limit_store

__all__ = ["check_limits", "check_store", "check_time_zones", "connect"]

STORE = f"{_conf.SETTING}['ACCESS']['LIMIT_STORE']"


def connect() -> None:
    """Register the checks."""
    register(check_store, Tags.compatibility)
    register(check_time_zones, Tags.compatibility)
    register(check_limits, Tags.database)


def check_store(**kwargs: Any) -> list[CheckMessage]:
    """Check the store of limits."""
    if _conf.problems():
        return []
    try:
        store = limit_store()
    except Exception as error:
        # Errors about values may name a part of the password in a URL.
        is_safe = isinstance(error, ImportError | ImproperlyConfigured | TypeError)
        return [
            Error(
                f"{STORE} cannot be used: {error if is_safe else type(error).__name__}",
                hint="RedisStore needs the extra 'redis', and 'url' in OPTIONS, with special "
                "characters of the password percent-encoded.",
                id="ollama_openai.E011",
            )
        ]
    if isinstance(store, MemoryStore) and not settings.DEBUG:
        return [
            Warning(
                f"{STORE} is MemoryStore: each process counts separately, and forgets the use of "
                "limits when it stops.",
                hint="Use DatabaseStore or RedisStore, unless the site has one process.",
                id="ollama_openai.W007",
            )
        ]
    return []


def check_time_zones(**kwargs: Any) -> list[CheckMessage]:
    """Check that the site's times have time zones."""
    if settings.USE_TZ:
        return []
    return [
        Error(
            "The app for access needs USE_TZ = True: the ends of keys and the periods of limits "
            "are times in time zones.",
            id="ollama_openai.E012",
        )
    ]


def check_limits(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the limits in the database."""
    alias = router.db_for_read(Limit)
    if alias not in (databases or ()) or _conf.problems():
        return []
    connection = connections[alias]
    with connection.cursor() as cursor:
        if Limit._meta.db_table not in connection.introspection.table_names(cursor):
            return []
    limits = Limit.objects.using(alias)
    messages: list[CheckMessage] = []
    costs = 0 if pricer() else limits.filter(unit=Unit.COST).count()
    if costs:
        messages.append(
            Warning(
                f"Requests have no prices: limits on 'cost' have no effect ({costs} found).",
                id="ollama_openai.W008",
            )
        )
    models = limits.order_by("model").values_list("model", flat=True).distinct()
    left_out = [
        model
        for model in models
        if not _conf.is_pattern(model) and not _conf.get().allows_model(model)
    ]
    if left_out:
        messages.append(
            Warning(
                f"Limits are set on models that {_conf.SETTING}['ALLOWED_MODELS'] does not allow: "
                f"{', '.join(map(repr, left_out))}.",
                id="ollama_openai.W009",
            )
        )
    return messages
