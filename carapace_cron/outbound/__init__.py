"""The one guarded door to other machines."""
