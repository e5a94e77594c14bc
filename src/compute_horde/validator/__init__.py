"""The validator: checks a job's signature, picks a miner, drives the job to its end, and keeps the receipts."""
