"""The application for gunicorn and other WSGI servers."""

from __future__ import annotations

import os

from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example.settings")

# Serves static files without collectstatic. In production a proxy or WhiteNoise does that.
application = StaticFilesHandler(get_wsgi_application())
