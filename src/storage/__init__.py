"""Files that are elsewhere.

web                 files from URLs that a caller names
bucket_errors       what boto3 raises and what S3 answers, as errors of ours
bucket_connections  the connections that boto3's client is to use
bucket              S3-compatible storage; the only owner of boto3
"""
