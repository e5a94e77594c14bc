"""``python -m compute_horde.cli``: the same as ``horde``."""

from compute_horde.cli.main import app

app(prog_name="horde")
