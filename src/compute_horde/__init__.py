"""Compute Horde: run Docker jobs on machines you do not own, and trust what comes back."""
