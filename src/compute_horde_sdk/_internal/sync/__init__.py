"""The synchronous client: a portal to an event loop in a thread, and classes generated over it."""
