"""The HTTP front door: takes signed jobs, keeps their history, hands each to the validator it names."""
