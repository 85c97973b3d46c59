from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile(
    "unit",
    settings.get_profile("shared"),
    max_examples=int(os.environ.get("UNIT_EXAMPLES", "25")),
)
settings.load_profile("unit")
