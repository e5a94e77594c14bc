"""Cross-validation: the same job once more on the trusted miner, and what the comparison says.

``plan``: whether, and with what. ``repetition``: the second job. ``comparing``, ``comparators``, ``numeric``: the
comparison. ``evidence``, ``verdict``: what is known and what follows from it. ``run``: all of it, for one job.
"""
