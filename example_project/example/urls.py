"""The gateway below ``/ai/``; everything else is the site's own."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from .views import home

urlpatterns = [
    path("", home, name="home"),
    path("ai/", include("django_ollama_openai.urls")),
    path("admin/", admin.site.urls),
]
