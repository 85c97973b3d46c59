from __future__ import annotations

from django.urls import include, path

from django_ollama_openai.views.endpoint import EndpointPattern
from tests.site.leftovers import left

GATEWAY = "django_ollama_openai.urls"

urlpatterns = [
    path("ai/", include(GATEWAY)),
    path("snake/", include(GATEWAY), {"case": "snake"}),
    path("camel/", include(GATEWAY), {"case": "camel"}),
    path("second/", include(GATEWAY), {"backend": "second"}),
    path("<slug:backend>/by-path/", include(GATEWAY)),
    EndpointPattern("left/", left, "left"),
]
