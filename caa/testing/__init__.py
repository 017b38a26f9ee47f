"""Tools for tests and driver authors, shipped; nothing in production imports them."""
