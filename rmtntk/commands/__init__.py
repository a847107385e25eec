"""The commands of ``rmtntk``: each module adds the parsers of its commands and runs them."""
