"""Ringmaster, nginx and HAProxy before the same servers, in one run."""
