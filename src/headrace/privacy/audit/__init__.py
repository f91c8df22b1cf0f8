"""Audits of what a trained model or adapter gives away of its training documents: membership and extraction."""
