"""The watch over jobs that others run: what their pings and their silence mean."""
