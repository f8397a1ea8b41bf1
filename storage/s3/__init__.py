"""Driver for an S3 bucket."""
