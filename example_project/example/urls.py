"""The gateway below ``/ai/``; everything else is the site's own."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from .views import Home

urlpatterns = [
    path("", Home.as_view(), name="home"),
    path("logout/", LogoutView.as_view(next_page="home"), name="logout"),
    path("ai/", include("django_ollama_openai.urls")),
    path("admin/", admin.site.urls),
]
