"""The URLconf for ``path("ai/", include("django_ollama_openai.urls"))``.

It may be included any number of times; extra arguments of a mount are its options. Optional apps
add the endpoints of the module that their ``AppConfig`` names as ``ollama_openai_urls``. An app's
pattern replaces the gateway's own with the same route.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module

from django.apps import AppConfig, apps
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, register_converter
from django.urls.converters import PathConverter

from . import _conf
from ._views.endpoint import EndpointPattern, path
from ._views.engine import chat_completions, completions, embeddings, responses
from ._views.health import health
from ._views.models import model, models
from ._views.not_found import not_found
from ._views.openapi import openapi


class AnythingConverter(PathConverter):
    """Matches everything: Django's own ``path`` converter stops at a line feed."""

    regex = r"(?s:.+)"


register_converter(AnythingConverter, "ollama_openai_anything")


def optional_endpoints() -> Iterator[tuple[AppConfig, list[URLPattern | URLResolver]]]:
    """Yield the installed apps that have endpoints, each with its patterns.

    A system check reports what is no name of a module.

    Raises:
        ImproperlyConfigured: The ``urlpatterns`` of an app cannot be imported.
    """
    for app in apps.get_app_configs():
        module = getattr(app, _conf.ENDPOINTS, None)
        if isinstance(module, str):
            try:
                yield app, import_module(module).urlpatterns
            except Exception as error:
                raise ImproperlyConfigured(
                    f"The app {app.name!r} names {module!r} as {_conf.ENDPOINTS}, whose "
                    f"urlpatterns cannot be imported: {error}."
                ) from error


def routes(patterns: Sequence[URLPattern | URLResolver], prefix: str = "") -> Iterator[str]:
    """Yield the routes of ``patterns``, and of the patterns that they include."""
    for pattern in patterns:
        route = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route


def gateway_patterns() -> list[EndpointPattern]:
    """Return the gateway's own patterns, without those that an app replaces."""
    replaced = {route for _, patterns in optional_endpoints() for route in routes(patterns)}
    return [pattern for pattern in core_patterns if str(pattern.pattern) not in replaced]


# No app_name: Django would warn of a second mount. The names begin with the app's own.
urlpatterns: list[URLPattern | URLResolver] = []

core_patterns: list[EndpointPattern] = [
    path("v1/chat/completions", chat_completions, name="ollama_openai_chat_completions"),
    path("v1/responses", responses, name="ollama_openai_responses"),
    path("v1/completions", completions, name="ollama_openai_completions"),
    path("v1/embeddings", embeddings, name="ollama_openai_embeddings"),
    path("v1/models", models, name="ollama_openai_models"),
    path("v1/models/<ollama_openai_anything:model_id>", model, name="ollama_openai_model"),
    path("health", health, name="ollama_openai_health"),
    path("openapi.json", openapi(urlpatterns), name="ollama_openai_openapi"),
]
_routes = {str(pattern.pattern) for pattern in core_patterns}
urlpatterns += [
    # What replaces the gateway's own is found as fast.
    *sorted(
        [
            *(pattern for _, patterns in optional_endpoints() for pattern in patterns),
            *gateway_patterns(),
        ],
        key=lambda pattern: str(pattern.pattern) not in _routes,
    ),
    path("", not_found, name="ollama_openai_root"),
    path("<ollama_openai_anything:rest>", not_found, name="ollama_openai_not_found"),
]
