"""Settings of a service: a TOML file, overridden by environment variables, shown with secrets hidden."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class ConfigurationError(ValueError):
    """The settings cannot be used. The text names each setting that is missing or wrong."""


class ServiceSettings(BaseSettings):
    """Base of each service's settings. Order: arguments, environment, TOML file, defaults."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")
    toml_path: ClassVar[Path | None] = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        if cls.toml_path is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, cls.toml_path)

    @classmethod
    def load(cls, path: Path | None, **overrides: Any) -> Any:
        """Settings from ``path`` (a TOML file, or None) and the environment.

        :raises ConfigurationError: the file is missing or a setting is wrong.
        """
        if path is not None and not path.is_file():
            raise ConfigurationError(f"there is no settings file at {path}")
        bound = type(cls.__name__, (cls,), {"toml_path": path, "__module__": cls.__module__})
        try:
            return bound(**overrides)
        except ValidationError as error:
            raise ConfigurationError(_explain(cls, error)) from None
        except ValueError as error:
            raise ConfigurationError(f"{path or 'the environment'}: {error}") from None


def _explain(settings: type[ServiceSettings], error: ValidationError) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        lines.append(f"{name} (or {prefix.upper()}{name.upper()} in the environment): {item['msg']}")
    return "; ".join(lines)
