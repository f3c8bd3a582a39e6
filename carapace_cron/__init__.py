"""The clock and the watchman of an AI-agent gateway. Start at ``docs/house.md``."""
