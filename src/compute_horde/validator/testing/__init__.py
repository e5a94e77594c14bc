"""Fakes for tests of the validator: its peers, and a world of them around it."""
