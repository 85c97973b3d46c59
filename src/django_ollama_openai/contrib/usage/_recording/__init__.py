"""Records of requests: making them, writing them, and adding them up."""
