"""Each carries notices to one kind of place."""
