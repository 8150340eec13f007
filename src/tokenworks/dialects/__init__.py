"""Dialects: the APIs that customers and endpoints speak, as bytes and as what is read of them; see README.md."""
