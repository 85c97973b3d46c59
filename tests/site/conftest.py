from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.servers import KEY, Site


@pytest.fixture
def client(site: Site) -> Iterator[openai.OpenAI]:
    """OpenAI's client, not Django's."""
    with openai.OpenAI(base_url=site.base_url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client
