"""Make the tables, the key and the limits of the site: ``python -m benchmarks.site.prepare``."""

from __future__ import annotations

import os

import django

__all__ = ["AMOUNTS", "main"]

#: Limits that refuse nothing: the unit, the period, and the amount.
AMOUNTS = (
    ("requests", "minute", 10**6),
    ("tokens", "minute", 10**9),
    ("concurrent", "", 10**4),
)


def main() -> None:
    """Make them, with the key that the environment names."""
    django.setup()
    from django.apps import apps
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from django_ollama_openai.contrib.access import _keys
    from django_ollama_openai.contrib.access.models import APIKey, Limit, Membership, Workspace

    call_command("migrate", verbosity=0)
    value = os.environ["BENCHMARK_KEY"]
    user = get_user_model()._default_manager.create(username="benchmark")
    workspace = Workspace.objects.create(name="Benchmark", slug="benchmark")
    Membership.objects.create(workspace=workspace, user=user)
    key = APIKey.objects.create(name="benchmark", user=user, workspace=workspace)
    key.secrets.create(
        digest=_keys.digest(value), start=_keys.start(value), last_four=_keys.last_four(value)
    )
    for unit, per, amount in AMOUNTS:
        Limit.objects.create(target="each_key", unit=unit, per=per, amount=amount)
    if apps.is_installed("django_ollama_openai.contrib.usage"):
        from django_ollama_openai.contrib.usage.models import Price

        Price.objects.create(model="*", input="0.1", output="0.4")


if __name__ == "__main__":
    main()
