"""What an operator sees of a service: metrics, health, logs. One set of each per service, none of them global."""
