"""What older peers send or expect, one place, each with its peer version. Handlers see only the newest shape."""
