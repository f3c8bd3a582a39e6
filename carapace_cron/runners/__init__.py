"""Each does one kind of command."""
