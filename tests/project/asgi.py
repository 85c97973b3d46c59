from __future__ import annotations

import os
from typing import Any

from django.core.asgi import get_asgi_application

from django_ollama_openai.asgi import fast_lane

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.project.settings")
site = get_asgi_application()
application: Any = fast_lane(site) if os.environ.get("SITE_FAST_LANE") else site
if os.environ.get("SITE_FAST_LANE") and os.environ.get("SITE_SPANS"):
    # Django's instrumentation is a middleware, which the lane bypasses.
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    application = OpenTelemetryMiddleware(application)
