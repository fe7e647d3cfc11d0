"""What a bench will take: the load of its tasks, this machine timed, the forecast, a budget."""
