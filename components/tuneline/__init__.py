"""What runs inside a tuneline container: the four steps, and what they share. Start with config.py."""

__version__ = "0.1.0"
