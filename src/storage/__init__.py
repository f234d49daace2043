"""Files in buckets and at URLs.

web                 downloads from URLs that a caller names, kept away from private addresses
bucket_errors       errors of boto3 and S3, translated into those of `errors`
bucket_connections  the connections that boto3's client uses
bucket              S3-compatible storage; the only module that uses boto3
"""
