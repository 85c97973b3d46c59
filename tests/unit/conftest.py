from __future__ import annotations

import os

from hypothesis import settings

# Contributors try fewer random examples than tox does, and so do older versions of Django.
if "TOX_ENV_NAME" not in os.environ or "TEST_SERVER" in os.environ:
    settings.register_profile("fast", settings.get_profile("shared"), max_examples=25)
    settings.load_profile("fast")
