"""What batchord costs: its batch phase against a plain client loop, on the same server in the same run. Not a test."""
