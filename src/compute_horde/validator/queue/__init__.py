"""The rules of waiting: who is next, when that will be, what is reported, and why a job has not started. Pure."""
