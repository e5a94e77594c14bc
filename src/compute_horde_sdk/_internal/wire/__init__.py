"""The facilitator's side of the library: HTTP, JSON and events, with httpx and pydantic.

Nothing outside imports it while a program starts: the two libraries take longer to load than all the rest. A
client opens it with its first call (:func:`compute_horde_sdk._internal.opening.open_horde`).
"""
