"""What a verifier will see: digests and PCR predictions, functions of files' bytes. Pure."""
