"""A site as ``startproject`` makes it, with a view of its own and the app, in the same process."""

from __future__ import annotations

import json
import os

SECRET_KEY = "for benchmarks only"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_ollama_openai",
    "benchmarks.site",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "benchmarks.site.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

OLLAMA_OPENAI = {
    "BACKENDS": {
        "default": {
            "HOST": os.environ["BENCHMARK_UPSTREAM"],
            "OPTIONS": json.loads(os.environ.get("BENCHMARK_OPTIONS", "{}")),
        }
    },
    "API_KEYS": [{"KEY": os.environ["BENCHMARK_KEY"], "NAME": "benchmark"}],
}
