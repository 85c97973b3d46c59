"""The app's config, and the attributes by which configs of optional apps extend the gateway.

An app that adds to the gateway is one of ``INSTALLED_APPS``, whose ``AppConfig`` has any of these
attributes:

``ollama_openai_urls``
    The dotted path of a module. Its ``urlpatterns``, made with
    :func:`~django_ollama_openai.endpoints.path`, are below every mount.
``ollama_openai_authenticators``, ``ollama_openai_policies``
    Lists of dotted paths, which are part of the defaults of ``AUTHENTICATION`` and ``POLICIES``.
``ollama_openai_commands``
    A dict: the names of subcommands of ``manage.py ollama`` → dotted paths of subclasses of
    :class:`~django_ollama_openai.management.subcommands.BaseSubcommand`.
``ollama_openai_pruners``
    A list of dotted paths of subclasses of
    :class:`~django_ollama_openai.management.pruning.BasePruner`, which ``manage.py ollama prune``
    runs.
``ollama_openai_settings``
    A dict: the names of sections of ``OLLAMA_OPENAI`` → dotted paths of subclasses of
    :class:`Section`. :func:`section` returns their current values.
"""

from __future__ import annotations

from django.apps import AppConfig

from ._conf import Section, section

__all__ = ["OllamaOpenAIConfig", "Section", "section"]


class OllamaOpenAIConfig(AppConfig):
    """The gateway. It has no models."""

    name = "django_ollama_openai"
    label = "ollama_openai"
    verbose_name = "Ollama OpenAI gateway"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers them)
