"""What peers tell each other of the extensions that they understand."""

import pytest

from compute_horde.protocol.extensions import EXTENSIONS_HEADER, Extension, announced, announcement


def test_what_is_announced_is_understood() -> None:
    assert announcement() == {EXTENSIONS_HEADER: "cancel capacity claims explain logs queue"}
    assert announced(announcement(Extension)) == frozenset(Extension)


@pytest.mark.parametrize("name", ["x-ch-extensions", "X-CH-EXTENSIONS", "X-CH-Extensions"])
def test_the_header_is_found_in_any_case(name: str) -> None:
    assert announced({"Host": "h", name: "logs"}) == {Extension.LOGS}


@pytest.mark.parametrize("text", ["", "   ", "v9-new", "LOGS", "logs,cancel", "\x00"])
def test_words_that_are_not_known_mean_nothing(text: str) -> None:
    assert announced({EXTENSIONS_HEADER: text}) == frozenset()


def test_a_peer_of_the_existing_network_announces_nothing() -> None:
    assert announced({"X-Validator-Version": "1"}) == frozenset()
