"""Which connection of a validator a job's messages go to. Pure."""

from hypothesis import given
from hypothesis import strategies as st

from compute_horde.facilitator.listing import in_batches
from compute_horde.facilitator.registry import LiveLink
from compute_horde.facilitator.rows import Outline
from compute_horde.facilitator.switchboard import choose, replaces
from compute_horde.facilitator.validators import Link, frame_for
from compute_horde.lifecycle.states import JobState
from compute_horde.protocol.extensions import Extension
from compute_horde.transport.memory import memory_pair


def live(name: str, instance: str | None = None) -> LiveLink:
    return LiveLink(name, "v", instance, frozenset(), 1, "http://a/", "owner", 0)


def job(given_to: str | None, holder: str | None = None) -> Outline:
    return Outline("v", JobState.RECEIVED, given_to, holder)


def test_who_reported_last_is_chosen_then_its_instance_then_the_newest() -> None:
    links = [live("new", "one"), live("older", "two"), live("oldest", "one")]
    assert choose(job("oldest", "two"), links) is links[2]
    assert choose(job("gone", "two"), links) is links[1]
    assert choose(job("gone", "one"), links) is links[0]
    assert choose(job("gone", "three"), links) is links[0]
    assert choose(job(None), links) is links[0]
    assert choose(job("gone"), []) is None


def test_a_new_connection_takes_over_from_its_own_instance_only() -> None:
    def new(instance: str | None) -> Link:
        return Link("v", memory_pair()[0], 1, 0, instance=instance)

    assert replaces(new("one"), live("x", "one"))
    assert not replaces(new("one"), live("x", "two"))
    assert replaces(new(None), live("x", "two"))
    assert replaces(new("one"), live("x"))


def test_a_frame_without_wishes_is_left_as_it_is() -> None:
    frame = '{"env":{"a":"\\"scheduling\\":"}}'
    assert frame_for(frozenset(), frame) is frame
    assert frame_for(frozenset({Extension.QUEUE}), '{"scheduling":{}}') == '{"scheduling":{}}'


@given(st.lists(st.integers(0, 100)))
def test_batches_keep_order_and_bound(sizes: list[int]) -> None:
    batches = in_batches([(str(n), size) for n, size in enumerate(sizes)], 50)
    assert [uuid for batch in batches for uuid in batch] == [str(n) for n in range(len(sizes))]
    for batch in batches:
        assert len(batch) == 1 or sum(sizes[int(uuid)] for uuid in batch) <= 50
