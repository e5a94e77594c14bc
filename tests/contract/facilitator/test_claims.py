"""A job belongs to one instance of its validator (extension ``claims``)."""

import asyncio
from typing import Any

import pytest

from compute_horde.protocol.extensions import announcement
from compute_horde.protocol.facilitator_validator import CLAIMED_ELSEWHERE, HEADER_INSTANCE

SUCCESS = {"status": "success", "errors": []}


def instance(name: str) -> dict[str, str]:
    return {**announcement(), HEADER_INSTANCE: name}


def kinds(response: dict[str, Any]) -> list[str]:
    return [error["type"] for error in response["errors"]]


async def create(bench: Any) -> tuple[dict[str, str], str]:
    token = {**await bench.login(), **announcement()}
    return token, str((await bench.post_job(token)).json()["uuid"])


async def nothing_came(peer: Any) -> None:
    """Answers are in order: whatever was pushed came before this one."""
    assert kinds(await peer.status("x", "received")) == ["job.not_found"]


async def test_the_first_that_reports_a_job_has_it(bench: Any) -> None:
    one, two = await bench.validator(headers=instance("one")), await bench.validator(headers=instance("two"))
    token, uuid = await create(bench)
    await two.receive()
    assert await one.status(uuid, "received") == SUCCESS
    for status in ("received", "accepted", "failed"):
        assert kinds(await two.status(uuid, status)) == [CLAIMED_ELSEWHERE]
    assert await one.status(uuid, "accepted") == SUCCESS
    assert [entry["status"] for entry in (await bench.job(uuid, token))["status_history"]] == [
        "sent",
        "received",
        "accepted",
    ]


async def test_an_instance_goes_on_over_another_connection(bench: Any) -> None:
    one = await bench.validator(headers=instance("one"))
    _, uuid = await create(bench)
    await one.receive()
    assert await one.status(uuid, "received") == SUCCESS
    again = await bench.validator(headers=instance("one"))
    assert await again.status(uuid, "accepted") == SUCCESS


@pytest.mark.parametrize(
    "headers", [{}, announcement(), {HEADER_INSTANCE: "two"}, instance(""), instance("x" * 65), instance("a\tb")]
)
async def test_who_does_not_say_which_one_it_is_is_not_held_to_it(bench: Any, headers: dict[str, str]) -> None:
    one = await bench.validator(headers=instance("one"))
    _, uuid = await create(bench)
    await one.receive()
    assert await one.status(uuid, "received") == SUCCESS
    older = await bench.validator(headers=headers)
    assert await older.status(uuid, "accepted") == SUCCESS


async def test_a_job_is_given_to_one_connection_and_to_another_when_that_is_lost(bench: Any) -> None:
    one = await bench.validator(headers=instance("one"))
    _, uuid = await create(bench)
    assert (await one.receive())["uuid"] == uuid
    two = await bench.validator(headers=instance("two"))
    await nothing_came(two)
    await one.hang_up()
    assert (await two.receive())["uuid"] == uuid
    assert await two.status(uuid, "received") == SUCCESS


async def test_messages_about_a_job_go_to_who_has_it(bench: Any) -> None:
    one, two = await bench.validator(headers=instance("one")), await bench.validator(headers=instance("two"))
    token, uuid = await create(bench)
    await two.receive()
    assert await two.status(uuid, "received") == SUCCESS
    newest = await bench.validator(headers=instance("one"))
    asking = asyncio.create_task(bench.http.get(f"/api/v1/jobs/{uuid}/explanation/", headers=token))
    assert (await two.receive())["message_type"] == "V0ExplainJobRequest"
    await asking
    await two.hang_up()
    again = await bench.validator(headers=instance("two"))
    await bench.validator(headers=instance("one"))
    await bench.http.post(f"/api/v1/jobs/{uuid}/cancel/", headers=token)
    assert await again.receive() == {"message_type": "V0CancelJobRequest", "job_uuid": uuid}
    for peer in (one, newest):
        await nothing_came(peer)
