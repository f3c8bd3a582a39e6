"""The reference host. It knows nothing of cron."""
