"""Settings: file, environment, errors that name the setting."""

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from compute_horde.configuration import ConfigurationError, ServiceSettings


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="HORDE_TESTED_", frozen=True, extra="forbid")

    port: int = 1
    name: str = "default"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 2\nname = "file"\n')
    monkeypatch.setenv("HORDE_TESTED_PORT", "3")
    loaded = Settings.load(file)
    assert (loaded.port, loaded.name) == (3, "file")
    assert Settings.load(None).name == "default"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no settings file at .*absent\.toml"):
        Settings.load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [("port = 'x'", r"port \(or HORDE_TESTED_PORT"), ("prot = 1", "prot"), ("port = ", r"settings\.toml")],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        Settings.load(file)
