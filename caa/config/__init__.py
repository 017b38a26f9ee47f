"""Settings as data: one row a setting; environment keys, flags, help and documentation are derived from the rows."""
