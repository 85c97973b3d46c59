"""The landing page."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.views import LoginView
from django.urls import reverse


class Home(LoginView):
    """Show how to call the gateway, with a chat box for users and a login form for others."""

    template_name = "home.html"
    next_page = "home"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Add the base URL of the gateway, its engine and its default model."""
        return super().get_context_data(
            base_url=self.request.build_absolute_uri(reverse("ollama_openai_root") + "v1"),
            engine=settings.ENGINE.name,
            model=settings.ENGINE.model,
            **kwargs,
        )
