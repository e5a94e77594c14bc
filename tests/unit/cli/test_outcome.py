"""What a remote party says, at the terminal."""

from compute_horde.cli.outcome import printable


def test_a_name_cannot_forge_lines_or_drive_the_terminal() -> None:
    assert printable("/artifacts/a\nhint: b\x1b[31m") == "/artifacts/a\\nhint: b\\x1b[31m"
    assert printable("/artifacts/größe.txt") == "/artifacts/größe.txt"
