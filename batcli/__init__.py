"""BAT: a large language model that listens to binaural audio and answers questions about it."""

__version__ = "0.1.0"
