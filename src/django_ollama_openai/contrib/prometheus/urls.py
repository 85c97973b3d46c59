"""The endpoint that the app adds to every mount."""

from __future__ import annotations

from ..._views.endpoint import EndpointPattern
from .views import metrics

urlpatterns = [EndpointPattern("metrics", metrics, name="ollama_openai_metrics")]
