"""The pure parts of the console."""
