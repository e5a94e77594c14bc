"""The miner: lends executors to validators, watches over them, and signs for what it did (sections 6, 7 and 9)."""
