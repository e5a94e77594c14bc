"""``horde ...``: the command line."""
