"""Delete old rows of optional apps: the classes that ``manage.py ollama prune`` runs.

The app's ``AppConfig`` names them as ``ollama_openai_pruners``: a list of dotted paths of
subclasses of :class:`BasePruner`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.apps import apps

from .. import _conf
from .from_apps import create

__all__ = ["BasePruner", "Pruning", "pruners"]


@dataclass(frozen=True, slots=True)
class Pruning:
    """The old rows of one kind. ``label`` names them in English, in the plural.

    ``count()`` returns their number. ``delete_batch()`` deletes some, in a short transaction of its
    own, and returns their number: 0 when there are no more.
    """

    label: str
    count: Callable[[], int]
    delete_batch: Callable[[], int]


class BasePruner:
    """Deletes the old rows of one app, created for each call of ``manage.py ollama prune``."""

    #: The name for ``--only``.
    name: str

    def prunings(self, older_than: timedelta | None) -> Iterable[Pruning]:
        """Return what is to be deleted, in this order. ``older_than`` is the age for all kinds of
        rows; ``None`` for the ages in the settings."""
        raise NotImplementedError(f"{type(self).__name__} must define prunings()")


def pruners() -> dict[str, BasePruner]:
    """Return the pruners of the installed apps, by name.

    Raises:
        ImproperlyConfigured: One of them cannot be imported, or is no pruner.
    """
    found: dict[str, BasePruner] = {}
    for app in apps.get_app_configs():
        for path in getattr(app, _conf.PRUNERS, None) or ():
            pruner = create(app, path, BasePruner)
            found[pruner.name] = pruner
    return found
