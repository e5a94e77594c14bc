"""The job's life, pure: states, deadlines, failure classification. Used alike by all four services."""
