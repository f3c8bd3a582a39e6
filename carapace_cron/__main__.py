"""``python -m carapace_cron``: the same as the command ``carapace-cron``."""

from carapace_cron.cli.main import main

main()
