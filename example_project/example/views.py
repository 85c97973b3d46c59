"""The landing page."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse


def home(request: HttpRequest) -> HttpResponse:
    """Say what runs here and how to call it."""
    context = {
        "base_url": request.build_absolute_uri(reverse("ollama_openai_root") + "v1"),
        "engine": settings.ENGINE.name,
        "model": settings.ENGINE.model,
    }
    return render(request, "home.html", context)
