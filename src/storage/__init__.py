"""Files that are elsewhere.

bucket  S3-compatible storage; the only owner of boto3
web     files from URLs that a caller names
"""
