"""The port to the chain, in our vocabulary."""

from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field


class MinerEndpoint(BaseModel):
    """Where a miner of the subnet listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hotkey: str
    address: str
    port: int = Field(gt=0, lt=65536)


class Directory(BaseModel):
    """Who may take part. ``users``: hotkeys that the facilitator accepts; ``signers``: hotkeys, beside its own,
    whose jobs a validator accepts; both belong to the operator, not to the chain, and live beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    validators: frozenset[str] = frozenset()
    miners: tuple[MinerEndpoint, ...] = ()
    users: frozenset[str] = frozenset()
    signers: frozenset[str] = frozenset()


class Chain(Protocol):
    """Reads the directory. Cheap enough to be asked at every use; never raises once it has answered."""

    def directory(self) -> Directory:
        """The newest directory that is known."""
        ...
