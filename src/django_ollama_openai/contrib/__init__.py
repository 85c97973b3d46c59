"""Optional apps. Each is installed by an extra and an entry in ``INSTALLED_APPS``."""
