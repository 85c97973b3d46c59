from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import include, path

from django_ollama_openai import endpoints
from tests.project import apps
from tests.project.leftovers import left

GATEWAY = "django_ollama_openai.urls"


@transaction.non_atomic_requests
def database_connections(request: HttpRequest) -> JsonResponse:
    """How many this process has open."""
    is_open = [connection.connection is not None for connection in list(apps.connected)]
    return JsonResponse({"open": sum(is_open)})


urlpatterns = [
    path("database-connections/", database_connections),
    path("ai/", include(GATEWAY)),
    path("snake/", include(GATEWAY), {"case": "snake"}),
    path("camel/", include(GATEWAY), {"case": "camel"}),
    path("second/", include(GATEWAY), {"backend": "second"}),
    path("<slug:backend>/by-path/", include(GATEWAY)),
    endpoints.path("left/", left, "left"),
]
