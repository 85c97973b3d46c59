"""The endpoint that the app adds to every mount."""

from __future__ import annotations

from ...endpoints import path
from .views import metrics

urlpatterns = [path("metrics", metrics, name="ollama_openai_metrics")]
