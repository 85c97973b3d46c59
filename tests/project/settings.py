"""A site as ``startproject`` makes it, with the app; the servers under test run it too."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path

BASE_DIR = Path(__file__).parent

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
USE_TZ = True

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    # For their middleware.
    "django.contrib.sites",
    "django.contrib.flatpages",
    "django.contrib.redirects",
    "django_ollama_openai",
    "tests.project",
    *os.environ.get("SITE_APPS", "").split(),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    *os.environ.get("SITE_MIDDLEWARE", "").split(),
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
SITE_ID = 1
ROOT_URLCONF = "tests.project.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SITE_DATABASE", ":memory:"),
        "CONN_MAX_AGE": int(os.environ.get("SITE_CONN_MAX_AGE", "0")),
        "ATOMIC_REQUESTS": bool(os.environ.get("SITE_ATOMIC_REQUESTS")),
    }
}
# Tests that look into it have one of their own.
MEDIA_ROOT = os.environ.get("SITE_MEDIA") or str(Path(tempfile.gettempdir(), "ollama-openai-tests"))
if os.environ.get("SITE_SIGNAL_LOG"):
    # A server of its own, whose output a test reads: who has logged it stands before every entry.
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"named": {"format": "[%(name)s] %(levelname)s %(message)s"}},
        "handlers": {"output": {"class": "logging.StreamHandler", "formatter": "named"}},
        "root": {"handlers": ["output"], "level": "WARNING"},
    }


def is_not_about_time(record: logging.LogRecord) -> bool:
    """Leave out what an event loop in debug mode says of a step that took long: any does, under
    load."""
    return not record.msg.startswith("Executing ")


logging.getLogger("asyncio").addFilter(is_not_about_time)
OLLAMA_OPENAI = json.loads(os.environ.get("SITE_OLLAMA_OPENAI", "{}"))
