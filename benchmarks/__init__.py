"""Measurements. ``python -m benchmarks`` prints them all; nothing is asserted."""
