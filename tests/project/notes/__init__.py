"""A small optional app, which uses each seam of the gateway: an example, and their proof."""
