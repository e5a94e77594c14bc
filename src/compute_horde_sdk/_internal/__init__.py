"""Private: import from :mod:`compute_horde_sdk.v1`."""
