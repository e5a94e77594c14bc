"""The page on settings names every setting of every service."""

import re
from pathlib import Path

import pytest

from compute_horde.configuration import ServiceSettings
from compute_horde.executor.settings import ExecutorSettings
from compute_horde.facilitator.settings import FacilitatorSettings
from compute_horde.miner.settings import MinerSettings
from compute_horde.validator.settings import ValidatorSettings

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("settings", [FacilitatorSettings, ValidatorSettings, MinerSettings, ExecutorSettings])
def test_every_setting_is_explained(settings: type[ServiceSettings]) -> None:
    prefix = settings.model_config["env_prefix"]
    section = next(part for part in PAGE.split("\n## ") if f"`{prefix}*`" in part)
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert set(settings.model_fields) <= named
