"""A whole horde in one process: what ``horde up`` and ``horde demo`` start."""
