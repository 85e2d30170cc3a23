"""The version of image2cad; pyproject.toml has the same."""

VERSION = "0.1.0"
