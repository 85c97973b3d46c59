"""The application for uvicorn and other ASGI servers."""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

# Serves static files without collectstatic. In production a proxy or WhiteNoise does that.
application = ASGIStaticFilesHandler(get_asgi_application())
