"""The durable record of runs, attempts, deliveries and tokens."""
