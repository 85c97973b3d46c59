from __future__ import annotations

import gc

from django.core.asgi import get_asgi_application

from django_ollama_openai.asgi import fast_lane

application = get_asgi_application()
with_fast_lane = fast_lane(application)

# As docs/deployment.rst advises.
gc.collect()
gc.freeze()
