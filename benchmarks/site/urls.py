from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from .views import chat_completions

urlpatterns = [
    path("handwritten/v1/chat/completions", chat_completions),
    path("ai/", include("django_ollama_openai.urls")),
    path("admin/", admin.site.urls),
]
