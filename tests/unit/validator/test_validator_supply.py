"""How many executors are presumed to be free, and who gets them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from compute_horde.chain.keys import throwaway_hotkey
from compute_horde.chain.port import MinerEndpoint
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.enums import ExecutorClass
from compute_horde.validator.matcher import Matcher, Pool, Ticket
from compute_horde.validator.queue.order import Waiting
from compute_horde.validator.reputation import Reputation
from compute_horde.validator.rows import Job
from compute_horde.validator.supply import PATIENCE, Supply
from compute_horde.validator.testing.scripted import job_request

TEST, GPU = ExecutorClass.always_on__test, ExecutorClass.always_on__gpu_24gb
ALICE = throwaway_hotkey("//Alice")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def supply(clock: Clock | None = None, **manifests: int) -> Supply:
    made = Supply(Reputation(), clock or Clock())
    for name, count in manifests.items():
        made.reached(name, {TEST: count})
    return made


def test_a_miner_that_was_never_reached_has_one_place_to_try() -> None:
    known = supply()
    assert known.room("m", TEST) == 1
    place = known.hold("m", TEST)
    assert known.room("m", TEST) == 0
    assert known.is_being_tried("m", TEST)
    place.free()
    place.free()
    assert known.room("m", TEST) == 1


def test_without_news_it_is_the_manifest_less_our_own_jobs() -> None:
    known = supply(m=3)
    places = [known.hold("m", TEST) for _ in range(2)]
    assert known.room("m", TEST) == 1
    for place in places:
        place.taken()
    assert known.room("m", TEST) == 1
    places[0].free()
    assert known.room("m", TEST) == 2
    assert known.slots("m", TEST) == 3
    assert known.offers("m") == {TEST: 3}


def test_what_a_miner_says_counts_more() -> None:
    known = supply(m=3)
    known.line_opened("m")
    known.pushed("m", {TEST: 1})
    assert known.room("m", TEST) == 1
    known.hold("m", TEST).taken()  # nothing was said meanwhile: it has one less
    assert known.room("m", TEST) == 0
    place = known.hold("m", TEST)
    known.pushed("m", {TEST: 1})
    place.taken()  # it has said so since: that stands
    assert known.room("m", TEST) == 1
    assert known.tells("m")
    known.line_closed("m")
    assert known.room("m", TEST) == 1  # three in all, two are ours


def test_a_busy_miner_is_left_alone_until_there_is_news_or_a_growing_pause_is_over() -> None:
    clock = Clock()
    known = supply(clock, m=2)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        known.hold("m", TEST).refused()
        assert known.room("m", TEST) == 0
        assert known.pause("m", TEST) == pause
        clock.now += pause
        assert known.room("m", TEST) == 1  # one attempt
    known.hold("m", TEST).taken()
    assert known.room("m", TEST) == 1  # it takes jobs again
    known.hold("m", TEST).refused()
    known.line_opened("m")
    known.pushed("m", {TEST: 2})
    assert known.room("m", TEST) == 2


def test_a_job_of_ours_that_ends_there_is_news() -> None:
    known = supply(m=2)
    mine = known.hold("m", TEST)
    mine.taken()
    known.hold("m", TEST).refused()
    assert known.room("m", TEST) == 0
    mine.free()
    assert known.room("m", TEST) == 2


def test_a_miner_that_says_it_has_room_and_is_always_busy_is_not_asked_without_end() -> None:
    known = supply(m=2)
    known.line_opened("m")
    known.pushed("m", {TEST: 1})
    for _ in range(PATIENCE):
        place = known.hold("m", TEST)
        known.pushed("m", {TEST: 1})
        place.refused()
        assert known.room("m", TEST) == 1
    place = known.hold("m", TEST)
    known.pushed("m", {TEST: 1})
    place.refused()
    assert known.room("m", TEST) == 0


def test_a_miner_that_is_away_is_tried_again_after_growing_pauses() -> None:
    clock = Clock()
    known = supply(clock, m=2)
    known.lost("m")
    known.lost("m")  # by another job, at the same time
    assert known.pause("m", TEST) == 1
    assert known.slots("m", TEST) == 0
    clock.now += 1.5
    assert known.away_for("m") == 1.5
    assert known.room("m", TEST) == 1
    known.lost("m")
    assert known.pause("m", TEST) == 2
    known.reached("m", {TEST: 2})
    assert known.away_for("m") is None
    assert known.room("m", TEST) == 2


def test_a_miner_without_the_class_is_tried_now_and_then() -> None:
    clock = Clock()
    known = supply(clock, m=2)
    assert known.lacks("m", GPU)
    assert not known.lacks("unknown", GPU)
    assert known.room("m", GPU) == 1
    known.hold("m", GPU).refused()
    assert known.room("m", GPU) == 0
    assert known.room("m", TEST) == 2


# the matcher

MINERS = [MinerEndpoint(hotkey=name, address="h", port=1) for name in ("m", "n")]
POOL = Pool(TEST, trusted=False)


def matcher(known: Supply, miners: Sequence[MinerEndpoint] = MINERS) -> Matcher:
    return Matcher(known, lambda _: miners, 0)


def ticket(number: int, *, eager: bool = False, excluded: set[str] | None = None) -> Ticket:
    uuid = f"{number:08d}-1111-4111-8111-111111111111"
    job = Job(job_request(uuid, ALICE), JobState.RECEIVED, float(number))
    return Ticket(job, Waiting(uuid, "user", 0, float(number)), eager, excluded or set())


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_is_first_gets_what_comes_free() -> None:
    known = supply(m=1, n=0)
    line = matcher(known)
    first, second = ticket(1), ticket(2)
    for one in (second, first):
        line.enter(one)
    held = known.hold("m", TEST)
    known.hold("n", TEST).refused()
    wanted = [line.want(one) for one in (second, first)]
    assert not any(want.done() for want in wanted)
    held.free()
    await turn()
    assert [want.done() for want in wanted] == [False, True]
    offer = line.take(first)
    assert offer is not None
    assert offer.miner.hotkey == "m"
    assert line.take(second) is None
    line.close()


async def test_nobody_waits_for_who_cannot_go_there() -> None:
    known = supply(m=1)
    line = matcher(known, MINERS[:1])
    barred, free = ticket(1, excluded={"m"}), ticket(2)
    for one in (barred, free):
        line.enter(one)
    assert not line.want(barred).done()
    assert line.want(free).done()
    line.leave(free)
    line.leave(free)
    assert known.room("m", TEST) == 1  # what was not taken up is given back
    line.close()


async def test_one_that_does_not_wait_asks_everybody_once() -> None:
    known = supply(m=1, n=1)
    line = matcher(known)
    for miner in MINERS:
        known.hold(miner.hotkey, TEST).taken()
    eager = ticket(1, eager=True)
    line.enter(eager)
    asked = []
    while line.want(eager).done() and (offer := line.take(eager)):
        asked.append(offer.miner.hotkey)
        offer.place.refused()
    assert sorted(asked) == ["m", "n"]
    line.close()


async def test_a_pause_that_is_over_wakes_the_line() -> None:
    clock = Clock()
    known = supply(clock, m=1)
    line = matcher(known, MINERS[:1])
    known.hold("m", TEST).refused()
    clock.now += 0.999
    one = ticket(1)
    line.enter(one)
    wanted = line.want(one)
    assert not wanted.done()
    clock.now += 1
    await asyncio.wait_for(wanted, 1)
    line.close()


async def test_running_jobs_count_for_their_user() -> None:
    line = matcher(supply(m=0))
    one = ticket(1)
    line.enter(one)
    line.began(one.job)
    line.ended(one.job)
    one.waits = True
    assert list(line.waiting()) == [(POOL, [one.job.uuid])]
    assert line.waiting_pools() == [POOL]
    place = line.place_of(one)
    assert (place.position, place.length) == (1, 1)
    line.close()
