"""A session of the client's wire side with a stand-in, whose pauses take no time and are counted."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
from tests.contract.sdk.legacy import LegacyFacilitator

from compute_horde_sdk._internal.port import Order
from compute_horde_sdk._internal.specs.job import ComputeHordeJobSpec
from compute_horde_sdk._internal.wire.session import Session
from compute_horde_sdk._internal.wiring import Wiring


def session(legacy: LegacyFacilitator, **wiring: Any) -> Session:
    """``legacy`` without a socket."""

    async def at_once(seconds: float) -> None:
        await asyncio.sleep(0)

    made = Wiring(transport=httpx.MockTransport(legacy.handle), sleep=at_once, jitter=lambda: 0.0)
    return Session("http://legacy.test", legacy.hotkey, replace(made, **wiring))


def order(image: str = "alpine", **fields: Any) -> Order:
    """A job for the validator that is connected. ``queue`` and the like go to the order, the rest to the spec."""
    own = {name: fields.pop(name) for name in ("queue", "on_trusted_miner", "validator_hotkey") if name in fields}
    spec = ComputeHordeJobSpec("always_on.test", "SN0", image, **fields)
    return Order(spec, **{"validator_hotkey": "validator", **own})
