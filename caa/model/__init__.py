"""The nouns: frozen dataclasses and enums. No I/O, no logging, no clock."""
