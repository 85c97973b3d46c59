"""The settings of the example site: what ``startproject`` writes, and ``OLLAMA_OPENAI``.

========================  ==================================================================
``EXAMPLE_API_KEY``       the key that clients send; without it only logged-in users get in
``EXAMPLE_ENGINE``        ``ollama`` or ``llamacpp``; without it, Ollama if it can chat
``EXAMPLE_MODEL``         the model of Ollama's that answers by default
``EXAMPLE_DEBUG``         ``1`` for Django's debug mode
``OLLAMA_HOST``           where Ollama listens
========================  ==================================================================
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from django.core.management.utils import get_random_secret_key

from .engine import choose

BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = BASE_DIR / ".demo"  # not in git
STATE_DIR.mkdir(exist_ok=True)


def _secret_key() -> str:
    """Return the secret key, which is created on the first run and kept for later ones."""
    path = STATE_DIR / "secret_key"
    if not path.exists():
        # Written to another file first, since several workers may do this concurrently.
        with NamedTemporaryFile("w", dir=STATE_DIR) as draft:
            draft.write(get_random_secret_key())
            draft.flush()
            with suppress(FileExistsError):
                os.link(draft.name, path)
    return path.read_text()


SECRET_KEY = _secret_key()
DEBUG = os.environ.get("EXAMPLE_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

# The gateway

ENGINE = choose(os.environ.get("EXAMPLE_ENGINE", ""), os.environ.get("EXAMPLE_MODEL", ""))

OLLAMA_OPENAI = {
    "BACKENDS": {"default": ENGINE.backend},
    "DEFAULT_MODEL": ENGINE.model,
    "MODELS": {ENGINE.model: {"OPTIONS": ENGINE.options}},
    "API_KEYS": [key for key in [os.environ.get("EXAMPLE_API_KEY")] if key],
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_ollama_openai",
    "django_ollama_openai.contrib.chat",
]

# Everything else is as in any site

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "example" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": STATE_DIR / "db.sqlite3",
    }
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "example" / "static"]

# Show crashes in the terminal, even if DEBUG is off.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"django": {"handlers": ["console"], "level": "INFO" if DEBUG else "ERROR"}},
}
