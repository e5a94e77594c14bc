"""What a caller describes a job with, checked before anything is sent."""
