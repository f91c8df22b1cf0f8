"""The oracle: interprets a Program with torch so that row count never changes the arithmetic."""
