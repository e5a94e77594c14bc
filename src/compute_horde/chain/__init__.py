"""What is read from Bittensor: who is a validator, who is a miner and where. A static file is the default."""
