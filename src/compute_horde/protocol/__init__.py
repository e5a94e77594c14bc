"""What crosses a wire: messages, enums, signed bytes and receipts. A leaf: no I/O, no other package of ours.

One module per conversation, one closed union per direction, named by direction:

* :mod:`.sdk_facilitator` — HTTP between a client and the facilitator
* :mod:`.facilitator_validator` — the validator's WebSocket to the facilitator
* :mod:`.validator_miner` — the validator's WebSocket to a miner
* :mod:`.miner_executor` — the executor's WebSocket to its miner
"""
