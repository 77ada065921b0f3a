"""Configs: YAML files with inheritance, command-line overrides, types and readable errors."""

from fewseg.util.config.load import Config, load_config

__all__ = ["Config", "load_config"]
